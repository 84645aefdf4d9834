"""The secrets of a build: the files and proxies that the environment names, and what may not be published of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import tomli_w

from builder.contract import CA_SECRET, KNOWN_HOSTS_SECRET, NETRC_SECRET, SSH_KEY_SECRET, UV_PYTHON_SECRET
from builder.engine.buildx import Provenance
from builder.errors import UsageError
from builder.lock.uv_python import UV_PYTHON_VARIABLES
from builder.login import read_netrc
from builder.matrix.model import Cell
from builder.matrix.schema import Ssh
from builder.memory import keep_in_memory
from builder.oci.credentials import configured_proxies
from builder.redaction import Login, keep_secret, redact, url_logins

# Docker's predefined build arguments: RUN gets them, but the image and its history do not contain them.
PROXY_ARGS: Final = tuple(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY")
    for name in (upper, upper.lower())
)

_SECRET_VARIABLES: Final[Mapping[str, str]] = {CA_SECRET: "SSL_CERT_FILE", NETRC_SECRET: "NETRC"}


def proxy_arguments() -> tuple[str, ...]:
    """The names of the proxy variables that are set, which builds get as arguments."""
    return tuple(name for name in PROXY_ARGS if os.environ.get(name))


def proxy_logins() -> tuple[Login, ...]:
    """The logins in the addresses of proxies, which builds get from the environment and from Docker's config file."""
    values = {name: os.environ.get(name, "") for name in PROXY_ARGS} | configured_proxies()
    found = [(place, *login) for place, value in values.items() for login in url_logins(value)]
    return tuple(Login(place=place, user=user, password=password) for place, user, password in found)


def read_build_secrets(ssh: Ssh | None = None) -> dict[str, Path]:
    """The files that builds get as secret mounts, by secret id: those of SSL_CERT_FILE and NETRC, if set, and for SSH.

    Raises UsageError if one is set and cannot be read, or if the matrix names variables for SSH that are not set.
    """
    secrets = {}
    variables = {**_SECRET_VARIABLES, **_ssh_variables(ssh)}
    for name, variable in variables.items():
        if os.environ.get(variable):
            path = Path(os.environ[variable])
            if not path.is_file() or not os.access(path, os.R_OK):
                raise UsageError(f"{variable} names {path}, which cannot be read", hint=f"correct or unset {variable}")
            secrets[name] = path
    if SSH_KEY_SECRET in secrets:
        keep_secret(secrets[SSH_KEY_SECRET].read_text(encoding="utf-8", errors="replace"))
    if NETRC_SECRET in secrets:
        read_netrc(secrets[NETRC_SECRET])
    return secrets


def read_uv_python_secret(cells: Iterable[Cell]) -> dict[str, Path]:
    """What tells a build where uv finds Pythons, by secret id: a uv.toml, in memory; none if no variable is set.

    Only for cells whose Python is from uv.
    """
    given = {key: value for name, key in UV_PYTHON_VARIABLES.items() if (value := os.environ.get(name))}
    if not given or all(cell.python_source == "base" for cell in cells):
        return {}
    for value in given.values():
        for user, password in url_logins(value):
            keep_secret(password, user=user)
    return {UV_PYTHON_SECRET: keep_in_memory("uv.toml", tomli_w.dumps(given).encode())}


def uses_agent(ssh: Ssh | None) -> bool:
    """Whether builds get the SSH agent of SSH_AUTH_SOCK."""
    return ssh is not None and ssh.key is None


def _ssh_variables(ssh: Ssh | None) -> Mapping[str, str]:
    """The variables that name files for SSH, by secret id."""
    if ssh is None:
        return {}
    needed = (ssh.known_hosts, ssh.key or "SSH_AUTH_SOCK")
    unset = [variable for variable in needed if not os.environ.get(variable)]
    if unset:
        hint = "set it, or remove the table ssh from the matrix"
        raise UsageError(f"{unset[0]} is not set, which builds need for git over SSH", hint=hint)
    return {KNOWN_HOSTS_SECRET: ssh.known_hosts, **({SSH_KEY_SECRET: ssh.key} if ssh.key else {})}


def credential_hosts() -> frozenset[str]:
    """The hosts that the netrc file of NETRC has a credential for; none if it is not set, or cannot be read."""
    try:
        return frozenset(read_netrc(Path(os.environ["NETRC"]))) if os.environ.get("NETRC") else frozenset()
    except UsageError:
        return frozenset()  # a build reports it


def check_provenance(provenance: Provenance | None) -> None:
    """Raise UsageError if provenance would publish a password: mode max includes the values of build arguments."""
    if provenance != "max":
        return
    values = {name: os.environ.get(name, "") for name in PROXY_ARGS} | configured_proxies()
    for name, value in values.items():
        if redact(value) != value:
            raise UsageError(
                f"{name} has a password, which --provenance=max would publish",
                hint="use --provenance=min, which omits build arguments",
            )
