"""The package index: finds the files whose hashes a requirements file pins."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import requests

from builder import http
from builder.errors import LockError, RegistryError, listed

if TYPE_CHECKING:
    from pypi_simple import DistributionPackage, PyPISimple

LANES = 8  # requests in parallel


@dataclass(frozen=True, kw_only=True)
class PinnedProject:
    """A pinned project: any of its files with one of these hashes may be installed (`{"sha256": {hex, …}}`)."""

    name: str
    version: str
    hashes: Mapping[str, frozenset[str]]


@dataclass(frozen=True, kw_only=True)
class IndexedFile:
    """A wheel or sdist in an index; `size` is in bytes, or None if the index does not give it."""

    filename: str
    url: str
    index: str
    size: int | None
    hashes: Mapping[str, str]
    is_wheel: bool


def without_credentials(url: str) -> str:
    """Return the URL without user name and password, which must never get into an image."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise LockError(f"{url!r} is not a URL: {error}") from error
    user, at, host = parts.netloc.rpartition("@")
    if at and parts.scheme.endswith("ssh"):
        host = f"{user.partition(':')[0]}@{host}"  # with ssh, the user name is part of the address and not secret
    return urlunsplit(parts._replace(netloc=host))


def fetch_files(pins: Sequence[PinnedProject], indexes: Sequence[str]) -> list[tuple[IndexedFile, ...]]:
    """Ask the indexes for the files of each project that match its hashes; the first index with a match wins.

    `indexes` are simple-API URLs in order of preference, with credentials if needed; if empty, the public index is
    asked. Raises LockError if no file of a project matches, RegistryError if an index does not answer.
    """
    from pypi_simple import PYPI_SIMPLE_ENDPOINT, PyPISimple  # noqa: PLC0415 -- a quarter of the start of any command

    stopped = threading.Event()
    session = http.open_session(stopped=stopped)
    clients = [PyPISimple(endpoint=url, session=session) for url in (indexes or [PYPI_SIMPLE_ENDPOINT])]
    matching = http.map_concurrently(lambda pin: _fetch_project_files(pin, clients), pins, stopped, lanes=LANES)
    missing = [f"{pin.name}=={pin.version}" for pin, files in zip(pins, matching, strict=True) if not files]
    if missing:
        urls = listed([without_credentials(client.endpoint) for client in clients])
        raise LockError(
            f"no file matches the pinned hashes at {urls}: {listed(missing)}",
            hint="pin again with that index, or set the right one with --index-url in the requirements file",
        )
    return matching


def _fetch_project_files(pin: PinnedProject, clients: Sequence[PyPISimple]) -> tuple[IndexedFile, ...]:
    from pypi_simple import NoSuchProjectError  # noqa: PLC0415 -- see fetch_files

    for client in clients:
        try:
            page = client.get_project_page(pin.name)
        except NoSuchProjectError:
            continue
        except requests.RequestException as error:
            raise RegistryError(
                f"cannot fetch {pin.name} from the package index {without_credentials(client.endpoint)}: "
                f"{http.failure_reason(error)}",
                hint="check the URL and the network; SSL_CERT_FILE names the CA bundle to trust",
            ) from error
        except Exception as error:  # the library and those below it raise many kinds about a page that is none
            raise RegistryError(
                f"the package index {without_credentials(client.endpoint)} did not send a page for {pin.name}: "
                f"{type(error).__name__}",
                hint="check the URL, which is that of a simple API; a login page or a proxy may have answered",
            ) from error
        files = tuple(
            _indexed(package, client.endpoint)
            for package in page.packages
            if package.package_type in {"wheel", "sdist"}
            and any(package.digests.get(name) in hexes for name, hexes in pin.hashes.items())
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
