"""A lock as parsed, and a selection: the exact artifacts of it that one cell installs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from packaging.pylock import Pylock

from builder.matrix.model import Cell

LockKind = Literal["uv.lock", "pylock.toml", "requirements.txt"]
Artifact = Literal["wheel", "sdist", "archive", "vcs"]


@dataclass(frozen=True, kw_only=True)
class BuildSystem:
    """What a local package needs in order to be built: its `[build-system]`, and the project's constraints on that.

    `backend` is empty where the backend lies in the package's own sources.
    """

    requires: tuple[str, ...]
    backend: str
    constraints: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SelectedPackage:
    """A package of a selection and the one file of it that is installed.

    `source` is the artifact's table as PEP 751 writes it; `size` is in bytes, where the lock says it.
    """

    name: str
    version: str | None
    artifact: Artifact
    filename: str
    size: int | None
    index: str | None
    source: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The exact artifacts of the lock that one cell installs, by name, and what else a build of them needs to know.

    `build_systems` are those of the local packages; `uv_settings` say, in the words of `uv.toml`, which index the
    requirements of builds come from. `uv_flags` are what a job adds to `uv sync` to get the same packages.
    """

    cell: Cell
    lock_kind: LockKind
    lock_name: str
    uv_flags: tuple[str, ...]
    packages: tuple[SelectedPackage, ...]
    build_systems: tuple[BuildSystem, ...]
    uv_settings: Mapping[str, Any]

    @property
    def download_size(self) -> int | None:
        """Bytes to download, or None where the lock leaves a size out."""
        sizes = [package.size for package in self.packages]
        return None if None in sizes else sum(size for size in sizes if size is not None)


@dataclass(frozen=True, kw_only=True)
class Lock:
    """A lock file, parsed: `uv_flags` are what a job adds to `uv sync`, or `uv pip sync`, to get the same packages."""

    path: Path
    kind: LockKind
    pylock: Pylock
    extras: tuple[str, ...]
    groups: tuple[str, ...]
    uv_flags: tuple[str, ...] = ()

    @property
    def project(self) -> Path:
        """The folder that the lock belongs to."""
        return self.path.parent
