"""The package index: finds the files whose hashes a requirements file pins."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import requests
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from builder import http
from builder.errors import LockError, RegistryError, listed
from builder.lock.kept_answer import AnswerCache, KeptAnswer
from builder.lock.page import ACCEPT, IndexedFile, parse_page
from builder.lock.url import without_credentials

LANES: Final = 16  # requests in parallel


@dataclass(frozen=True, kw_only=True)
class PinnedProject:
    """A pinned project: any of its files with one of these hashes may be installed (`{"sha256": {hex, …}}`).

    Not every environment needs one that `is_optional`, so that an index may lack it.
    """

    name: str
    version: str
    hashes: Mapping[str, frozenset[str]]
    is_optional: bool = False

    def admits(self, file: IndexedFile) -> bool:
        """Whether it is one of the files that may be installed."""
        is_pinned = any(file.hashes.get(name) in hexes for name, hexes in self.hashes.items())
        return is_pinned and (file.version is None or self._specifier.contains(file.version))

    @property
    def _specifier(self) -> SpecifierSet:
        try:
            return SpecifierSet(f"=={self.version}", prereleases=True)
        except InvalidSpecifier:  # from `===`
            return SpecifierSet()


@dataclass(frozen=True, kw_only=True)
class _Client:
    """The indexes in order of preference, as simple-API URLs with credentials, and what is kept of their answers."""

    get: Callable[..., requests.Response]
    indexes: tuple[str, ...]
    cache: AnswerCache

    def fetch_files(self, pin: PinnedProject) -> tuple[IndexedFile, ...]:
        """The files of a project that match its hashes, in the first index that has one."""
        hexes = frozenset[str]().union(*pin.hashes.values())
        for index in self.indexes:
            found = self._fetch_page(index, pin.name, hexes)
            matching = tuple(file for file in found if pin.admits(file))
            if matching:
                return matching
        return ()

    def _fetch_page(self, index: str, name: str, hexes: frozenset[str]) -> tuple[IndexedFile, ...]:
        """The files with one of the hashes on the project's page; none if the index does not have the project."""
        url = f"{index.rstrip('/')}/{canonicalize_name(name)}/"
        shown = without_credentials(index).rstrip("/")
        kept = self.cache.find(without_credentials(url), hexes)
        if kept and kept.is_fresh:
            return kept.files
        try:
            response = self.get(url, headers={"Accept": ACCEPT, **(kept.conditions if kept else {})})
            if response.status_code == requests.codes.not_found:
                return ()
            response.raise_for_status()
            if kept and response.status_code == requests.codes.not_modified:
                return kept.files
            files = parse_page(response, name, shown, hexes)
        except requests.RequestException as error:
            raise RegistryError(
                f"cannot fetch {name} from the package index {shown}: {http.failure_reason(error)}",
                hint="check the URL and the network; SSL_CERT_FILE names the CA bundle to trust",
            ) from error
        except (ValueError, TypeError) as error:
            raise RegistryError(
                f"the package index {shown} sent a malformed page of {name}: {str(error).splitlines()[0]}",
                hint="check that the URL is that of a simple API (PEP 503 or 691)",
            ) from error
        self.cache.keep(without_credentials(url), hexes, KeptAnswer.of(response.headers, files))
        return files


def fetch_files(
    pins: Sequence[PinnedProject], indexes: Sequence[str], cache: AnswerCache
) -> list[tuple[IndexedFile, ...]]:
    """Ask the indexes for the files of each project that match its hashes; the first index with a match wins.

    `indexes` are simple-API URLs in order of preference, with credentials if needed; if empty, the public index is
    asked. Raises LockError if no file of a project matches that is not optional, RegistryError if an index does not
    answer.
    """
    from pypi_simple import PYPI_SIMPLE_ENDPOINT  # noqa: PLC0415 -- a quarter of the start of any command

    stopped = threading.Event()
    client = _Client(
        get=http.open_session(stopped=stopped).get, indexes=tuple(indexes) or (PYPI_SIMPLE_ENDPOINT,), cache=cache
    )
    matching = http.map_concurrently(client.fetch_files, pins, stopped, lanes=LANES)
    missing = [
        f"{pin.name}=={pin.version}"
        for pin, files in zip(pins, matching, strict=True)
        if not files and not pin.is_optional
    ]
    if missing:
        urls = listed([without_credentials(index) for index in client.indexes])
        raise LockError(
            f"no file matches the pinned hashes at {urls}: {listed(missing)}",
            hint="pin again with that index, or set the right one with --index-url in the requirements file",
        )
    return matching
