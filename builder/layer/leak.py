"""Searches content for marks of secrets: as it is, and in what is packed in it."""

from __future__ import annotations

import bz2
import contextlib
import json
import lzma
import os
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, Final

import zstandard
from isal import igzip, isal_zlib

from builder.layer.secrets import find_mark

_CHUNK: Final = 1 << 20
_DEPTH: Final = 3  # a file in an archive that is compressed
_MOST: Final = 4 << 30  # bytes that are unpacked of one file; more is a bomb
_TAR_AT: Final = 257  # where a tar says what it is (POSIX, ustar)
_NESTED_JSON: Final = 5  # a label that has JSON, in a config
_Unpack = Callable[[IO[bytes]], Iterator[IO[bytes]]]

_DAMAGED: Final[tuple[type[Exception], ...]] = (
    OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zlib.error, lzma.LZMAError, tarfile.TarError,
    zipfile.BadZipFile, zstandard.ZstdError,
    isal_zlib.IsalError,  # type: ignore[assignment]  # isal's stubs declare an instance
)  # fmt: skip


def _gzip(file: IO[bytes]) -> Iterator[IO[bytes]]:
    yield igzip.IGzipFile(fileobj=file, mode="rb")  # type: ignore[no-untyped-call,misc]


def _zstd(file: IO[bytes]) -> Iterator[IO[bytes]]:
    yield zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=False)


def _bzip2(file: IO[bytes]) -> Iterator[IO[bytes]]:
    with bz2.BZ2File(file) as plain:
        yield plain


def _xz(file: IO[bytes]) -> Iterator[IO[bytes]]:
    with lzma.LZMAFile(file) as plain:
        yield plain


def _zip(file: IO[bytes]) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            with contextlib.suppress(*_DAMAGED), archive.open(name) as member:  # it may be encrypted, others not
                yield member


def _tar(file: IO[bytes]) -> Iterator[IO[bytes]]:
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for entry in archive:
            if entry.isreg() and (member := archive.extractfile(entry)):
                yield member


_PACKED: Final[Mapping[bytes, _Unpack]] = {
    b"\x1f\x8b": _gzip, b"\x28\xb5\x2f\xfd": _zstd, b"BZh": _bzip2, b"\xfd7zXZ\0": _xz, b"PK\3\4": _zip,
}  # fmt: skip


class LeakSearch:
    """Looks for marks in content that comes in pieces, and then in what is packed in it: gzip, zip, tar and others.

    `marks` are pieces of secrets, each with a description; without any, nothing is searched.
    """

    def __init__(self, marks: Mapping[bytes, str], *, depth: int = _DEPTH, budget: list[int] | None = None) -> None:
        self._marks = marks
        self._depth = depth
        self._budget = budget if budget is not None else [_MOST]
        self._longest = max(map(len, marks), default=1) - 1
        self._has_begun = False
        self._tail = b""
        self._found = ""
        self._unpack: _Unpack | None = None
        self._copy: IO[bytes] | None = None

    def feed(self, piece: bytes) -> None:
        """Take the next piece; the first one has at least 512 bytes, unless there are no more."""
        if not self._marks or self._found:
            return
        if not self._has_begun and self._depth:
            self._unpack = _kind_of(piece)
            self._copy = tempfile.TemporaryFile() if self._unpack else None  # noqa: SIM115
        self._has_begun = True
        if self._copy:
            self._copy.write(piece)
        self._found = find_mark(self._marks, self._tail + piece)
        self._tail = (self._tail + piece)[-self._longest :] if self._longest else b""

    def finish(self) -> str:
        """Return the description of a mark that was found; an empty text if there is none."""
        if self._copy and self._unpack:
            with self._copy as copy:
                self._found = self._found or self._search_packed(copy, self._unpack)
        return self._found

    def _search_packed(self, copy: IO[bytes], unpack: _Unpack) -> str:
        copy.seek(0)
        with contextlib.suppress(*_DAMAGED):  # what could be read was searched
            for member in unpack(copy):
                if found := self._search_member(member):
                    return found
        return ""

    def _search_member(self, member: IO[bytes]) -> str:
        inner = LeakSearch(self._marks, depth=self._depth - 1, budget=self._budget)
        with contextlib.suppress(*_DAMAGED):
            while self._budget[0] > 0 and (piece := member.read(_CHUNK)):
                self._budget[0] -= len(piece)
                inner.feed(piece)
        return inner.finish()


def entry_text(entry: tarfile.TarInfo) -> bytes:
    """What an entry of a tar says besides its content: name, link, owners, and attributes in extended headers."""
    texts = (entry.name, entry.linkname, entry.uname, entry.gname)
    return os.fsencode("\0".join([*texts, *(text for pair in entry.pax_headers.items() for text in pair)]))


def _kind_of(start: bytes) -> _Unpack | None:
    if start[_TAR_AT : _TAR_AT + 5] == b"ustar":
        return _tar
    return next((unpack for magic, unpack in _PACKED.items() if start.startswith(magic)), None)


def find_leak(marks: Mapping[bytes, str], content: bytes) -> str:
    """Return the description of the first mark in a content, or in what is packed in it; an empty text if none is."""
    search = LeakSearch(marks)
    search.feed(content)
    return search.finish()


def find_leak_in_json(marks: Mapping[bytes, str], content: bytes) -> str:
    """The same for JSON, in which texts are also searched as they are without its escapes."""
    try:
        texts = "\n".join(_texts(json.loads(content), _NESTED_JSON))
    except (ValueError, RecursionError):
        texts = ""
    return find_leak(marks, content) or find_mark(marks, texts.encode(errors="surrogatepass"))


def _texts(value: Any, depth: int) -> Iterator[str]:
    """Every text in a JSON value, and every text in those that are JSON themselves."""
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _texts(item, depth)
    elif isinstance(value, str):
        yield value
        if depth and value.lstrip().startswith(("{", "[", '"')):
            try:
                nested = json.loads(value)
            except (ValueError, RecursionError):
                return
            yield from _texts(nested, depth - 1)
