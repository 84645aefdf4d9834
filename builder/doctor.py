"""Whether builder can work here: engine, registries, rights, proxies, disk, clock; for each a verdict and a remedy."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

import requests

from builder.engine.docker import DockerEngine
from builder.engine.docker_client import docker_host
from builder.errors import BuilderError
from builder.folders import cache_folder
from builder.image.plan import input_images
from builder.lock.uv import own_version
from builder.matrix.model import Matrix
from builder.oci.credentials import credentials_for
from builder.oci.reference import ImageRef, Mirrors
from builder.oci.target import Target
from builder.oci.transport import Transport
from builder.process import run
from builder.request import published_repository
from builder.rootfs.confine import find_confinement
from builder.secret import PROXY_ARGS, read_build_secrets

Verdict = Literal["ok", "warning", "failed"]
_ENOUGH: Final = 5 << 30  # bytes free
_LEAST: Final = 512 << 20
_SKEW: Final = 300.0  # seconds by which tokens and certificates are surely wrong
_CONNECT: Final = 3.0  # seconds


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """One thing that was looked at; `remedy` says what to do unless all is well."""

    subject: str
    verdict: Verdict
    found: str
    remedy: str = ""


def diagnose(matrix: Matrix, mirrors: Mirrors) -> Iterator[Diagnosis]:
    """Look at everything that the images of a matrix need, one thing after the other."""
    yield Diagnosis(subject="uv", verdict="ok", found=f"{own_version()}, builder's own")
    yield from _makers()
    yield from _files()
    yield from _proxies()
    yield from _disks()
    yield from _registries(matrix, mirrors, Transport(insecure=matrix.insecure, stopped=threading.Event()))


def _makers() -> Iterator[Diagnosis]:
    """The engine, buildx, and what this machine can do by itself."""
    engine = DockerEngine()
    is_running = engine.is_running()
    confinement = _failure(find_confinement) if sys.platform == "linux" else "only Linux has it"
    native = "this machine makes images itself" if not confinement else f"not here: {confinement.splitlines()[0]}"
    if is_running:
        yield Diagnosis(subject="engine", verdict="ok", found=f"answers at {docker_host()}")
        fault = _fault(engine.check)
        version = re.search(r"v?\d+\.\d+\.\d+", run(["docker", "buildx", "version"]).stdout) if not fault else None
        yield (
            fault("buildx")
            if fault
            else Diagnosis(subject="buildx", verdict="ok", found=version[0] if version else "works")
        )
    else:
        remedy = (
            "`builder build --push` and `run` work without one; `builder build` and `verify` need one: start Docker, "
            "or set DOCKER_HOST"
        )
        yield Diagnosis(
            subject="engine", verdict="failed" if confinement else "warning", found="none answers", remedy=remedy
        )
    yield Diagnosis(subject="native maker", verdict="ok" if is_running or not confinement else "failed", found=native)


def _files() -> Iterator[Diagnosis]:
    """The CA bundle and the credentials that variables name."""
    fault = _fault(read_build_secrets)
    bundle = os.environ.get("SSL_CERT_FILE")
    if fault:
        yield fault("CA and netrc")
    elif bundle:
        try:
            count = len(ssl.create_default_context(cafile=bundle).get_ca_certs())
            yield Diagnosis(subject="CA", verdict="ok", found=f"SSL_CERT_FILE={bundle}: {count} certificates")
        except ssl.SSLError:
            yield Diagnosis(
                subject="CA", verdict="failed", found=f"SSL_CERT_FILE={bundle} has no certificate",
                remedy="name a file of certificates in PEM form, or unset the variable",
            )  # fmt: skip
    else:
        yield Diagnosis(subject="CA", verdict="ok", found="the public authorities; SSL_CERT_FILE is not set")


def _proxies() -> Iterator[Diagnosis]:
    """Each proxy that is set; without its login."""
    named = {name: os.environ[name] for name in PROXY_ARGS if os.environ.get(name) and "no_proxy" not in name.lower()}
    if not named:
        yield Diagnosis(subject="proxies", verdict="ok", found="none is set")
    for name, value in named.items():
        parts = urlsplit(value if "//" in value else f"//{value}")
        address = f"{parts.hostname}:{parts.port or 80}"
        try:
            socket.create_connection((parts.hostname or "", parts.port or 80), timeout=_CONNECT).close()
            yield Diagnosis(subject=name, verdict="ok", found=f"{address} answers")
        except (OSError, ValueError) as error:
            yield Diagnosis(
                subject=name, verdict="failed", found=f"{address} does not answer: {error}",
                remedy=f"correct or unset {name}; NO_PROXY names hosts to reach without it",
            )  # fmt: skip


def _disks() -> Iterator[Diagnosis]:
    """The folders in which much is written."""
    cache = cache_folder().absolute()
    nearest = next(each for each in (cache, *cache.parents) if each.exists())
    for variable, folder in (("BUILDER_CACHE_DIR", nearest), ("TMPDIR", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        verdict: Verdict = "ok" if free >= _ENOUGH else "warning" if free >= _LEAST else "failed"
        if not os.access(folder, os.W_OK):
            verdict = "failed"
        remedy = "" if verdict == "ok" else f"make space, or let {variable} name another folder that can be written"
        yield Diagnosis(subject="disk", verdict=verdict, found=f"{folder}: {free / 1e9:.1f} GB free", remedy=remedy)


def _registries(matrix: Matrix, mirrors: Mirrors, transport: Transport) -> Iterator[Diagnosis]:
    """The registries of base images and of uv, the clock by one of them, and the repository to push to."""
    dates: list[str] = []
    seen: set[str] = set()
    for original in input_images(matrix):
        target = Target(ref=mirrors.locate(original), original=original)
        if target.ref.name not in seen:
            seen.add(target.ref.name)
            yield _readable(target, transport, dates)
    if dates:
        yield _clock(dates[0])
    repository = published_repository(matrix)
    if repository is None:
        yield Diagnosis(
            subject="repository", verdict="warning", found="none is set, so images stay on this machine",
            remedy='set it in the matrix (repository = "registry.example.com/acme/ci"), or CI_REGISTRY_IMAGE',
        )  # fmt: skip
    else:
        yield _writable(repository, transport)


def _readable(target: Target, transport: Transport, dates: list[str]) -> Diagnosis:
    via = "" if target.ref.registry == target.original.registry else f" by its mirror {target.ref.registry}"
    subject = f"registry {target.original.registry}"
    answer = _asked(lambda: transport.send("HEAD", target, f"manifests/{target.ref.tag or 'latest'}"))
    if isinstance(answer, BuilderError):
        return Diagnosis(subject=subject, verdict="failed", found=answer.what, remedy=answer.hint)
    dates += [answer.headers["Date"]] if "Date" in answer.headers else []
    if answer.ok:
        return Diagnosis(subject=subject, verdict="ok", found=f"has {target.original.familiar}{via}")
    return Diagnosis(
        subject=subject, verdict="failed", found=f"answers {answer.status_code} for {target.original.familiar}{via}",
        remedy=f"docker login {target.ref.registry}; or check the name and tag in the matrix",
    )  # fmt: skip


def _writable(repository: ImageRef, transport: Transport) -> Diagnosis:
    """Whether this user may push: the registry begins an upload, which is cancelled."""
    target = Target(ref=repository, original=repository)
    try:
        login = credentials_for(repository.registry)
        answer = transport.send("POST", target, "blobs/uploads/", action="push")
        if answer.status_code == requests.codes.accepted and "Location" in answer.headers:
            url = transport.join_url(answer.url, answer.headers["Location"], target)
            transport.send_once("DELETE", target, url, action="push")
    except BuilderError as error:
        return Diagnosis(subject="repository", verdict="failed", found=error.what, remedy=error.hint)
    who = f"as {login[0]}" if login and login[0] else "without a login"
    if answer.status_code == requests.codes.accepted:
        return Diagnosis(subject="repository", verdict="ok", found=f"{repository.familiar}: may push, {who}")
    return Diagnosis(
        subject="repository", verdict="failed",
        found=f"{repository.familiar}: may not push, {who} ({answer.status_code} {answer.reason})",
        remedy=f"docker login {repository.registry}, as a user who may write there",
    )  # fmt: skip


def _clock(date: str) -> Diagnosis:
    """The time here against that of a registry."""
    try:
        skew = (datetime.now(timezone.utc) - parsedate_to_datetime(date)).total_seconds()
    except (TypeError, ValueError):
        return Diagnosis(subject="clock", verdict="ok", found="the registry does not tell the time")
    if abs(skew) < _SKEW:
        return Diagnosis(subject="clock", verdict="ok", found=f"{abs(skew):.0f} s from the registry's")
    side = "ahead of" if skew > 0 else "behind"
    return Diagnosis(
        subject="clock", verdict="failed", found=f"{abs(skew):.0f} s {side} the registry's",
        remedy="set it: certificates and tokens are only valid for a time",
    )  # fmt: skip


def _asked(ask: Callable[[], requests.Response]) -> requests.Response | BuilderError:
    try:
        return ask()
    except BuilderError as error:
        return error


def _failure(attempt: Callable[[], object]) -> str:
    """What an attempt fails with; '' if it succeeds."""
    try:
        attempt()
    except BuilderError as error:
        return error.what
    return ""


def _fault(attempt: Callable[[], object]) -> Callable[[str], Diagnosis] | None:
    """A diagnosis of an attempt that fails, for a subject; None if it succeeds."""
    try:
        attempt()
    except BuilderError as error:
        what, hint = error.what, error.hint
        return lambda subject: Diagnosis(subject=subject, verdict="failed", found=what, remedy=hint)
    return None
