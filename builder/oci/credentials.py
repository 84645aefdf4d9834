"""Registry logins, from Docker's config file, its credential helpers and GitLab's job variables."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from builder.errors import RegistryError
from builder.oci.reference import DOCKER_HUB
from builder.parse import Document, MalformedError, parse_document, parse_or_raise, read_text
from builder.process import run
from builder.redaction import keep_secret, keep_url_secret

# As a user name, it says that the secret is an identity token (docker-credential-helpers), to be exchanged for others.
IDENTITY_USER: Final = "<token>"
HELPER_SECONDS: Final = 60.0  # somebody may have to unlock a store
_HELPER_BYTES: Final = 1 << 20
_HUB_KEY: Final = "https://index.docker.io/v1/"
_JOB_LOGINS: Final = (
    ("CI_REGISTRY", "CI_REGISTRY_USER", "CI_REGISTRY_PASSWORD"),
    ("CI_DEPENDENCY_PROXY_SERVER", "CI_DEPENDENCY_PROXY_USER", "CI_DEPENDENCY_PROXY_PASSWORD"),
)


class _Login(Document):
    """A login in Docker's config file: `user:password` in base64, or a token; empty if a credential helper has it."""

    auth: str = ""
    identity_token: str = Field("", alias="identitytoken")


class _DockerConfig(Document):
    """The fields of Docker's config file that builder reads."""

    auths: dict[str, _Login | None] = Field(default_factory=dict)
    cred_helpers: dict[str, str] = Field(default_factory=dict, alias="credHelpers")
    creds_store: str = Field("", alias="credsStore")
    proxies: dict[str, dict[str, Any]] = Field(default_factory=dict)


class _HelperAnswer(Document):
    """The output of a credential helper's `get` (protocol: docker/docker-credential-helpers)."""

    username: str = Field(alias="Username")
    secret: str = Field(alias="Secret")


def credentials_for(registry: str) -> tuple[str, str] | None:
    """Return the user name and password for a registry; None if there is no login. Messages mask the password.

    With IDENTITY_USER as user name, the password is an identity token.

    Logins of `docker login` take precedence. In a GitLab job, the job's own variables provide logins for the project's
    registry and for the dependency proxy. Raises RegistryError if a login cannot be read.
    """
    login = _find_login(registry)
    if login:
        keep_secret(login[1], user=login[0])
    return login


def _find_login(registry: str) -> tuple[str, str] | None:
    config, _ = _docker_config()
    key = _HUB_KEY if registry == DOCKER_HUB else registry
    helper = config.cred_helpers.get(registry) or config.creds_store
    if helper:
        answer = run([f"docker-credential-{helper}", "get"], stdin=key, seconds=HELPER_SECONDS, limit=_HELPER_BYTES)
        if answer.returncode == 0:
            fault = RegistryError(
                f"docker-credential-{helper} did not print a login for {registry}",
                hint=f"docker login {registry}",
            )
            login = parse_or_raise(_HelperAnswer, answer.stdout, fault)
            return login.username, login.secret
    for name in (key, f"https://{registry}", f"https://{registry}/v2/"):
        entry = config.auths.get(name)
        if entry and entry.identity_token:
            return IDENTITY_USER, entry.identity_token
        if entry and entry.auth:
            return _decoded(entry.auth, registry)
    return _job_logins().get(registry)


@contextlib.contextmanager
def docker_environment() -> Iterator[Mapping[str, str]]:
    """Yield the environment variables that give the docker command the logins of a GitLab job; none outside a job.

    DOCKER_CONFIG names a temporary folder with those logins and everything from Docker's own config folder: contexts,
    plugins, builders. The logins are in memory, so that a run that is killed leaves no password in a file.
    """
    logins = _job_logins()
    if not logins:
        yield {}
        return
    (_, config), docker_folder = _docker_config(), _docker_folder()
    auths = {
        registry: {"auth": base64.b64encode(":".join(login).encode()).decode()} for registry, login in logins.items()
    }
    with tempfile.TemporaryDirectory(prefix="builder-") as folder:
        for path in docker_folder.iterdir() if docker_folder.is_dir() else ():
            if path.name != "config.json":
                Path(folder, path.name).symlink_to(path.absolute())
        table = {**config, "auths": auths | config.get("auths", {})}
        with _readable(json.dumps(table).encode(), Path(folder, "config.json")):
            yield {"DOCKER_CONFIG": folder}


@contextlib.contextmanager
def _readable(content: bytes, path: Path) -> Iterator[None]:
    """Make the content readable under the path, to this process's children: in memory on Linux, else in a file."""
    if not hasattr(os, "memfd_create") or not Path("/proc/self/fd").is_dir():
        path.touch(mode=0o600)
        path.write_bytes(content)
        yield
        return
    with open(os.memfd_create(path.name), "w+b") as file:  # noqa: PTH123 - a descriptor
        file.write(content)
        file.flush()
        path.symlink_to(f"/proc/{os.getpid()}/fd/{file.fileno()}")
        yield


def _job_logins() -> dict[str, tuple[str, str]]:
    """The logins that GitLab gives to a job, by registry: the project's registry and the group's dependency proxy."""
    logins: dict[str, tuple[str, str]] = {}
    for server, user, password in _JOB_LOGINS:
        host = os.environ.get(server, "")
        if host and os.environ.get(password):
            login = os.environ.get(user, ""), os.environ[password]
            # CI_DEPENDENCY_PROXY_SERVER includes the port even if it is the default one.
            logins |= {host: login, host.removesuffix(":443"): login}
    return logins


def configured_proxies() -> dict[str, str]:
    """Return the proxies that Docker's config file sets for builds, by their place in that file."""
    config, _ = _docker_config()
    for value in (value for proxies in config.proxies.values() for value in proxies.values()):
        keep_url_secret(str(value))
    return {
        f"proxies.{engine}.{name} in Docker's config file": str(value)
        for engine, proxies in config.proxies.items()
        for name, value in proxies.items()
    }


def _decoded(encoded: str, registry: str) -> tuple[str, str]:
    try:
        user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError as error:
        raise RegistryError(
            f"Docker's config file has an unreadable login for {registry}", hint=f"docker login {registry}"
        ) from error
    return user, password


def _docker_folder() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")


def _docker_config() -> tuple[_DockerConfig, Mapping[str, Any]]:
    """Docker's config file, parsed and as raw JSON; raise RegistryError if it cannot be read."""
    path = _docker_folder() / "config.json"
    if not path.is_file():
        return _DockerConfig(), {}
    try:
        text = read_text(path)
        return parse_document(_DockerConfig, text), json.loads(text)
    except (OSError, UnicodeDecodeError, MalformedError) as error:
        raise RegistryError(
            f"cannot read {path}: {error}", hint="correct it, or remove it and run docker login again"
        ) from error
