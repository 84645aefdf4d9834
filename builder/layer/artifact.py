"""The files in the artifacts that a lock names: what is in one of them, byte for byte, is no secret.

An artifact is fetched only for a file of an image that looks like a secret, and counts only with the hash in the lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Final

import requests
from packaging.utils import canonicalize_name

from builder import http
from builder.layer.secrets import record_hash_of
from builder.layer.store import hex_of
from builder.lock.model import SelectedPackage

_CHUNK: Final = 1 << 20
_LARGEST: Final = 4 << 30  # bytes, of an artifact whose size the lock does not give
_SLOWEST: Final = 1 << 20  # bytes per second
_MOST_UNPACKED: Final = 16 << 30  # bytes; more is a bomb
_STRONG: Final = ("sha256", "sha384", "sha512")
_DAMAGED: Final = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, tarfile.TarError, zlib.error)


class UnknownArtifactError(Exception):
    """The artifact cannot be fetched, or is not what the lock names; `str()` says why."""


@dataclass(kw_only=True)
class Artifacts:
    """The artifacts of packages; those that were fetched are remembered by their hash. `stopped` ends every request."""

    stopped: threading.Event = field(default_factory=threading.Event)
    _known: dict[str, frozenset[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def vouch(self, records: Mapping[str, Iterable[str]], hash_: str, packages: Iterable[SelectedPackage]) -> bool:
        """Whether a file with this hash, as RECORDs write it, is in the artifact of one of the packages.

        `records` are the hashes in RECORDs, by path. They tell which package to look at, and are not believed.
        """
        names = {_owner(path) for path, hashes in records.items() if hash_ in hashes}
        return any(hash_ in self._files(package) for package in packages if package.name in names)

    def _files(self, package: SelectedPackage) -> frozenset[str]:
        with self._lock:
            key = str(package.source.get("hashes"))
            if key not in self._known:
                try:
                    self._known[key] = self._fetch(package)
                except UnknownArtifactError:
                    self._known[key] = frozenset()
            return self._known[key]

    def _fetch(self, package: SelectedPackage) -> frozenset[str]:
        hashes, url = package.source.get("hashes"), str(package.source.get("url", ""))
        known = {name: str(value) for name, value in hashes.items()} if isinstance(hashes, Mapping) else {}
        with fetch_artifact(url, known, size=package.size, stopped=self.stopped) as file:
            try:
                return frozenset(_hashes(file, is_zip=url.partition("#")[0].endswith((".whl", ".zip"))))
            except _DAMAGED as error:
                raise UnknownArtifactError(f"it is damaged: {error}") from error


@contextlib.contextmanager
def fetch_artifact(
    url: str, hashes: Mapping[str, str], *, size: int | None, stopped: threading.Event
) -> Iterator[IO[bytes]]:
    """Download an artifact to a file that is removed afterwards; `hashes` are those in the lock, `size` is in bytes.

    Raises UnknownArtifactError.
    """
    strong = {name: hashes[name] for name in _STRONG if name in hashes}
    if not strong or not url.startswith(("https://", "http://")):
        raise UnknownArtifactError("the lock gives no URL, or no hash that is strong enough")
    limit = size or _LARGEST
    session = http.open_session(stopped=stopped)
    with tempfile.TemporaryFile() as file:
        try:
            seconds = http.PAGE_SECONDS + limit / _SLOWEST
            session.request("GET", url, limit=limit, seconds=seconds, sink=file).raise_for_status()
        except requests.RequestException as error:
            raise UnknownArtifactError(http.failure_reason(error)) from error
        for name, hex_ in strong.items():
            file.seek(0)
            if hex_of(file, name) != hex_:
                raise UnknownArtifactError("it has another hash than the lock says")
        file.seek(0)
        yield file


def _owner(record: str) -> str:
    """The package that a RECORD belongs to, by the name of its folder (`<name>-<version>.dist-info/RECORD`)."""
    folder = record.split("/")[-2] if "/" in record else ""
    return canonicalize_name(folder.removesuffix(".dist-info").partition("-")[0])


def _hashes(file: IO[bytes], *, is_zip: bool) -> Iterator[str]:
    left = _MOST_UNPACKED
    for member in _zipped(file) if is_zip else _tarred(file):
        hashed = hashlib.sha256()
        while left > 0 and (chunk := member.read(_CHUNK)):
            hashed.update(chunk)
            left -= len(chunk)
        if left <= 0:
            raise UnknownArtifactError("it unpacks to too much")
        yield record_hash_of(hashed.digest())


def _zipped(file: IO[bytes]) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                yield member


def _tarred(file: IO[bytes]) -> Iterator[IO[bytes]]:
    with tarfile.open(fileobj=file) as archive:
        for entry in archive:
            if entry.isreg() and (member := archive.extractfile(entry)):
                yield member
