"""Lock files for tests: PEP 751 tables of packages in an index that does not exist."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from builder.lock.model import Lock
from builder.lock.read import read_lock
from builder.matrix.schema import Install

INDEX = "https://index.invalid/simple"
FILES = "https://files.invalid"


def wheel(name: str, version: str, tag: str = "py3-none-any", *, size: int | None = 1000) -> dict[str, Any]:
    """A wheel's table; its hash comes from its name."""
    return _file(f"{name.replace('-', '_')}-{version}-{tag}.whl", size)


def sdist(name: str, version: str, *, size: int | None = 1000) -> dict[str, Any]:
    """A source distribution's table."""
    return _file(f"{name.replace('-', '_')}-{version}.tar.gz", size)


def _file(filename: str, size: int | None) -> dict[str, Any]:
    table: dict[str, Any] = {"name": filename, "url": f"{FILES}/{filename}", "hashes": {"sha256": fake_hash(filename)}}
    return table if size is None else {**table, "size": size}


def fake_hash(text: str) -> str:
    """The SHA-256 of the text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def package(name: str, version: str = "1.0", *tags: str, with_sdist: bool = False, **more: Any) -> dict[str, Any]:
    """A package in the index with a wheel for each tag; `more` are further keys, with '-' written '_'."""
    table: dict[str, Any] = {"name": name, "version": version, "index": INDEX}
    if tags:
        table["wheels"] = [wheel(name, version, tag) for tag in tags]
    if with_sdist:
        table["sdist"] = sdist(name, version)
    return {**table, **{key.replace("_", "-"): value for key, value in more.items()}}


def pure(name: str, version: str = "1.0", **more: Any) -> dict[str, Any]:
    """A package with a wheel for every platform."""
    return package(name, version, "py3-none-any", **more)


def table_of(*packages: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A lock's table; `more` are further top-level keys, with '-' written '_'."""
    top = {key.replace("_", "-"): value for key, value in more.items()}
    return {"lock-version": "1.0", "created-by": "tests", **top, "packages": list(packages)}


def write(folder: Path, *packages: Mapping[str, Any], **more: Any) -> Path:
    """Write a `pylock.toml` into the folder and return its path."""
    path = folder / "pylock.toml"
    path.write_text(tomli_w.dumps(table_of(*packages, **more)), encoding="utf-8")
    return path


def read(folder: Path, *packages: Mapping[str, Any], install: Install | None = None, **more: Any) -> Lock:
    """Write a `pylock.toml` into the folder and read it as builder does."""
    return read_lock(write(folder, *packages, **more), install or Install())
