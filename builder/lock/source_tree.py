"""What an sdist is made of: whether its build needs a compiler, as far as its files and its build backend tell."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import requests
import tomli

from builder import http
from builder.lock.model import SelectedPackage
from builder.parse import MalformedError, parse_value

_LARGEST: Final = 20_000_000  # bytes; a larger sdist is not fetched only to look at it
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
        requires = [str(each) for each in build_system.get("requires", [])]
        is_rust = backend.startswith(_RUST) or any(each.startswith(_RUST) for each in requires)
        has_sources = any(name.endswith(_COMPILED) for name in names)
        compiles = backend.startswith(_COMPILING) or (has_sources and not backend.startswith(_PURE))
        return cls(is_compiled=is_rust or compiles, is_rust=is_rust)


def _build_system(pyproject: str) -> Mapping[str, Any]:
    try:
        table = tomli.loads(pyproject).get("build-system", {})
    except tomli.TOMLDecodeError:
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
        with contextlib.suppress(requests.RequestException, OSError, ValueError, KeyError, tarfile.TarError):
            response = session.get(package.source["url"], timeout=_TIMEOUT)
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
            return SourceTree.from_members(names, archive.read(path).decode() if path else "")
    with tarfile.open(fileobj=io.BytesIO(content)) as archive_:
        names = archive_.getnames()
        path = _pyproject(names)
        file = archive_.extractfile(path) if path else None
        return SourceTree.from_members(names, file.read().decode() if file else "")


def _pyproject(names: Iterable[str]) -> str | None:
    """The path of the sdist's own pyproject.toml, which is in its only top folder."""
    return next((name for name in names if name.count("/") == 1 and name.endswith("/pyproject.toml")), None)
