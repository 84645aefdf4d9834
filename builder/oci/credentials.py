"""User names and passwords for registries: GitLab's job variables, Docker's config file, its credential helpers."""

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
from builder.parse import Document, MalformedError, document, expect
from builder.process import run

_HUB_KEY: Final = "https://index.docker.io/v1/"
_JOB_LOGINS: Final = (
    ("CI_REGISTRY", "CI_REGISTRY_USER", "CI_REGISTRY_PASSWORD"),
    ("CI_DEPENDENCY_PROXY_SERVER", "CI_DEPENDENCY_PROXY_USER", "CI_DEPENDENCY_PROXY_PASSWORD"),
)


class _Login(Document):
    """A login in Docker's config file: `user:password` in base64, empty where a helper keeps it."""

    auth: str = ""


class _DockerConfig(Document):
    """What builder reads of Docker's config file."""

    auths: dict[str, _Login | None] = Field(default_factory=dict)
    cred_helpers: dict[str, str] = Field(default_factory=dict, alias="credHelpers")
    creds_store: str = Field("", alias="credsStore")
    proxies: dict[str, dict[str, Any]] = Field(default_factory=dict)


class _HelperAnswer(Document):
    """What a credential helper prints for `get`."""

    username: str = Field(alias="Username")
    secret: str = Field(alias="Secret")


def credentials_for(registry: str) -> tuple[str, str] | None:
    """Return user name and password for the registry, or None where nobody is logged in.

    What `docker login` noted goes first; in a GitLab job its registry and the dependency proxy need no login.
    """
    config, _ = _docker_config()
    key = _HUB_KEY if registry == DOCKER_HUB else registry
    helper = config.cred_helpers.get(registry) or config.creds_store
    if helper:
        answer = run([f"docker-credential-{helper}", "get"], stdin=key)
        if answer.returncode == 0:
            fault = RegistryError(
                f"docker-credential-{helper} did not answer with a login for {registry}",
                hint=f"docker login {registry}",
            )
            found = expect(_HelperAnswer, answer.stdout, fault)
            return found.username, found.secret
    for name in (key, f"https://{registry}", f"https://{registry}/v2/"):
        login = config.auths.get(name)
        if login and login.auth:
            return _decoded(login.auth, registry)
    return _of_the_job().get(registry)


@contextlib.contextmanager
def docker_environment() -> Iterator[Mapping[str, str]]:
    """Yield what the docker command is started with to have the logins of a GitLab job: nothing outside of one.

    It is a config folder for the time being, with all that is in Docker's own: contexts, plugins, builders.
    """
    logins = _of_the_job()
    if not logins:
        yield {}
        return
    (_, config), here = _docker_config(), _docker_folder()
    auths = {
        registry: {"auth": base64.b64encode(":".join(login).encode()).decode()} for registry, login in logins.items()
    }
    with tempfile.TemporaryDirectory(prefix="builder-") as folder:
        for path in here.iterdir() if here.is_dir() else ():
            if path.name != "config.json":
                Path(folder, path.name).symlink_to(path.absolute())
        table = {**config, "auths": auths | config.get("auths", {})}
        Path(folder, "config.json").write_text(json.dumps(table), encoding="utf-8")
        yield {"DOCKER_CONFIG": folder}


def _of_the_job() -> dict[str, tuple[str, str]]:
    """User names and passwords that GitLab gives to a job: of its registry, and of the group's dependency proxy."""
    logins: dict[str, tuple[str, str]] = {}
    for server, user, password in _JOB_LOGINS:
        host = os.environ.get(server, "")
        if host and os.environ.get(password):
            login = os.environ.get(user, ""), os.environ[password]
            # The proxy's has the port, also where it is the one that goes without saying.
            logins |= {host: login, host.removesuffix(":443"): login}
    return logins


def configured_proxies() -> dict[str, str]:
    """Return the proxies that Docker's config file gives to builds, by where they stand there."""
    config, _ = _docker_config()
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
    """Docker's config file, parsed and as it is; raise RegistryError where it cannot be read."""
    path = _docker_folder() / "config.json"
    if not path.is_file():
        return _DockerConfig(), {}
    try:
        text = path.read_text(encoding="utf-8")
        return document(_DockerConfig, text), json.loads(text)
    except (OSError, UnicodeDecodeError, MalformedError) as error:
        raise RegistryError(
            f"cannot read {path}: {error}", hint="correct it, or remove it and run docker login again"
        ) from error
