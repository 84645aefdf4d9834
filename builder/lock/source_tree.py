"""What an sdist is made of: whether its build needs a compiler, as far as its files and its build backend tell."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

from builder import http
from builder.lock.model import SelectedPackage
from builder.parse import MalformedError, load_toml, parse_value

_LARGEST: Final = 20_000_000  # bytes; a larger sdist is not fetched only to look at it
_SECONDS: Final = 60.0  # for an sdist
_MOST_UNPACKED: Final = 512 << 20  # bytes; more is a bomb
_LARGEST_PYPROJECT: Final = 1 << 20  # bytes
_TIMEOUT: Final = (3.0, 10.0)  # seconds to connect, and between two bytes: it is only for a hint
_COMPILED: Final = (".c", ".cc", ".cpp", ".cxx", ".pyx", ".f", ".f90", ".rs")
_COMPILING: Final = ("mesonpy", "scikit_build_core", "skbuild", "maturin", "setuptools_rust")
# Backends that compile nothing: sources in C are for something else, such as tests.
_PURE: Final = ("flit_core", "hatchling", "pdm.backend", "poetry", "uv_build")
_RUST: Final = ("maturin", "setuptools-rust", "setuptools_rust")


@dataclass(frozen=True, kw_only=True)
class SourceTree:
    """Whether the build of a source tree compiles something, and whether that is Rust."""

    is_compiled: bool
    is_rust: bool

    @classmethod
    def from_members(cls, names: Iterable[str], pyproject: str) -> SourceTree:
        """Judge by the names of the files and the text of the pyproject.toml; empty if there is none."""
        build_system = _build_system(pyproject)
        backend = str(build_system.get("build-backend", ""))
        declared = build_system.get("requires")
        requires = [str(each) for each in declared] if isinstance(declared, list) else []
        is_rust = backend.startswith(_RUST) or any(each.startswith(_RUST) for each in requires)
        has_sources = any(name.endswith(_COMPILED) for name in names)
        compiles = backend.startswith(_COMPILING) or (has_sources and not backend.startswith(_PURE))
        return cls(is_compiled=is_rust or compiles, is_rust=is_rust)


def _build_system(pyproject: str) -> Mapping[str, Any]:
    try:
        table = load_toml(pyproject).get("build-system", {})
    except MalformedError:
        return {}
    return table if isinstance(table, dict) else {}


def fetch_source_trees(packages: Sequence[SelectedPackage], cache: Path | None) -> dict[str, SourceTree]:
    """Look into sdists, by URL; those that cannot be fetched or read are left out. Answers are kept in the cache."""
    stopped = threading.Event()
    session = http.open_session(retries=0, stopped=stopped)

    def look(package: SelectedPackage) -> SourceTree | None:
        kept = cache / f"{next(iter(package.source['hashes'].values()))}.json" if cache else None
        if kept and (tree := _kept(kept)):
            return tree
        # It is only for a hint: an sdist may be anything, and the libraries raise many kinds of errors.
        with contextlib.suppress(Exception):
            response = session.request("GET", package.source["url"], timeout=_TIMEOUT, limit=_LARGEST, seconds=_SECONDS)
            response.raise_for_status()
            tree = _tree(package.filename, response.content)
            if kept:
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(asdict(tree)), encoding="utf-8")
            return tree
        return None

    small = [package for package in packages if package.artifact == "sdist" and (package.size or 0) <= _LARGEST]
    trees = http.map_concurrently(look, small, stopped) if small else []
    return {str(package.source["url"]): tree for package, tree in zip(small, trees, strict=True) if tree}


def _kept(path: Path) -> SourceTree | None:
    try:
        return parse_value(SourceTree, path.read_bytes())
    except (OSError, MalformedError):
        return None


def _tree(filename: str, content: bytes) -> SourceTree:
    if filename.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            path = _pyproject(names)
            return SourceTree.from_members(names, _text(archive.open(path)) if path else "")
    names, pyproject = [], ""
    with gzip.open(io.BytesIO(content)) as plain, tarfile.open(fileobj=_Limited(plain), mode="r|") as tar:  # type: ignore[call-overload] # reads only
        for entry in tar:
            names.append(entry.name)
            if _pyproject([entry.name]) and (file := tar.extractfile(entry)):
                pyproject = _text(file)
    return SourceTree.from_members(names, pyproject)


class _Limited:
    """A stream that ends with an error when it has more than half a gigabyte."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file = file
        self._left = _MOST_UNPACKED

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes."""
        piece = self._file.read(size)
        self._left -= len(piece)
        if self._left < 0:
            raise ValueError("it unpacks to too much")
        return piece


def _text(file: IO[bytes]) -> str:
    with file:
        return file.read(_LARGEST_PYPROJECT).decode()


def _pyproject(names: Iterable[str]) -> str | None:
    """The path of the sdist's own pyproject.toml, which is in its only top folder."""
    return next((name for name in names if name.count("/") == 1 and name.endswith("/pyproject.toml")), None)
