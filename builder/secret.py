"""The secrets of a build: the files and proxies that the environment names, and what may not be published of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from builder.contract import CA_SECRET, NETRC_SECRET
from builder.engine.buildx import Provenance
from builder.errors import UsageError
from builder.login import read_netrc
from builder.oci.credentials import configured_proxies
from builder.redaction import Login, redact, url_logins

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


def read_build_secrets() -> dict[str, Path]:
    """The files that builds get as secret mounts, by secret id: those of SSL_CERT_FILE and NETRC, if set.

    Raises UsageError if one is set and cannot be read.
    """
    secrets = {}
    for name, variable in _SECRET_VARIABLES.items():
        if os.environ.get(variable):
            path = Path(os.environ[variable])
            if not path.is_file() or not os.access(path, os.R_OK):
                raise UsageError(f"{variable} names {path}, which cannot be read", hint=f"correct or unset {variable}")
            secrets[name] = path
    if NETRC_SECRET in secrets:
        read_netrc(secrets[NETRC_SECRET])
    return secrets


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
