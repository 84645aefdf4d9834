"""The package index: where the files lie that a hash-pinned requirement names by hash alone."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import requests
from pypi_simple import PYPI_SIMPLE_ENDPOINT, DistributionPackage, NoSuchProjectError, PyPISimple

from builder import http
from builder.errors import LockError, RegistryError, listed

LANES = 8  # requests under way at once


@dataclass(frozen=True, kw_only=True)
class PinnedProject:
    """A project of which any file with one of these hashes will do (`{"sha256": {hex, …}}`)."""

    name: str
    version: str
    hashes: Mapping[str, frozenset[str]]


@dataclass(frozen=True, kw_only=True)
class IndexedFile:
    """A wheel or sdist at an index; `size` in bytes where the index says it."""

    filename: str
    url: str
    index: str
    size: int | None
    hashes: Mapping[str, str]
    is_wheel: bool


def without_credentials(url: str) -> str:
    """Return the URL without user name and password, which must never reach an image."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise LockError(f"{url!r} is not a URL: {error}") from error
    user, at, host = parts.netloc.rpartition("@")
    if at and parts.scheme.endswith("ssh"):
        host = f"{user.partition(':')[0]}@{host}"  # with ssh the name is part of the address, and no secret
    return urlunsplit(parts._replace(netloc=host))


def find_files(wanted: Sequence[PinnedProject], indexes: Sequence[str]) -> list[tuple[IndexedFile, ...]]:
    """Return each project's files that carry one of its hashes, from the first index that has any.

    `indexes` are simple-API URLs in order of preference, with credentials where needed; none means the public one.
    Raises LockError for projects of which no file matches, RegistryError where an index cannot be asked.
    """
    stopped = threading.Event()
    session = http.open_session(stopped=stopped)
    clients = [PyPISimple(endpoint=url, session=session) for url in (indexes or [PYPI_SIMPLE_ENDPOINT])]
    found = http.map_concurrently(lambda each: _find(each, clients), wanted, stopped, lanes=LANES)
    missing = [f"{each.name}=={each.version}" for each, files in zip(wanted, found, strict=True) if not files]
    if missing:
        asked = listed([without_credentials(client.endpoint) for client in clients])
        raise LockError(
            f"no file with any of the pinned hashes at {asked}: {listed(missing)}",
            hint="pin again against that index, or name the right one with --index-url in the requirements file",
        )
    return found


def _find(wanted: PinnedProject, clients: Sequence[PyPISimple]) -> tuple[IndexedFile, ...]:
    for client in clients:
        try:
            page = client.get_project_page(wanted.name)
        except NoSuchProjectError:
            continue
        except requests.RequestException as error:
            raise RegistryError(
                f"cannot ask the package index {without_credentials(client.endpoint)} for {wanted.name}: "
                f"{http.failure_reason(error)}",
                hint="check the address and the network; SSL_CERT_FILE names the CA bundle to trust",
            ) from error
        files = tuple(
            _indexed(package, client.endpoint)
            for package in page.packages
            if package.package_type in {"wheel", "sdist"}
            and any(package.digests.get(name) in hexes for name, hexes in wanted.hashes.items())
        )
        if files:
            return files
    return ()


def _indexed(package: DistributionPackage, endpoint: str) -> IndexedFile:
    return IndexedFile(
        filename=package.filename,
        url=without_credentials(package.url),
        index=without_credentials(endpoint).rstrip("/"),
        size=package.size,
        hashes=dict(package.digests),
        is_wheel=package.package_type == "wheel",
    )
