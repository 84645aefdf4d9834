"""A parsed lock, and a selection: the exact artifacts that one cell installs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from packaging.pylock import Pylock

from builder.matrix.model import Cell

LockKind = Literal["uv.lock", "script", "pylock.toml", "requirements.txt"]
Artifact = Literal["wheel", "sdist", "archive", "vcs"]


@dataclass(frozen=True, kw_only=True)
class BuildSystem:
    """What a local package needs for its build: its `[build-system]`, and the project's constraints on it.

    `backend` is empty if the backend is part of the package's own sources.
    """

    requires: tuple[str, ...]
    backend: str
    constraints: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SelectedPackage:
    """A selected package, and the one artifact of it to install.

    `source` is the artifact's PEP 751 table; `size` is in bytes, or None if the lock does not give it.
    """

    name: str
    version: str | None
    artifact: Artifact
    filename: str
    size: int | None
    index: str | None
    source: Mapping[str, Any]

    @property
    def is_wheel(self) -> bool:
        """Whether it is installed as it is; everything else is built from source. A URL may name a wheel too."""
        return self.artifact == "wheel" or (self.artifact == "archive" and self.filename.endswith(".whl"))

    @property
    def is_over_ssh(self) -> bool:
        """Whether it comes from git over SSH."""
        return self.artifact == "vcs" and "ssh" in str(self.source["url"]).partition("://")[0]


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A tool that the matrix names: its requirement (PEP 508), and the wheels of its environment, its own first."""

    requirement: str
    packages: tuple[SelectedPackage, ...]

    @property
    def name(self) -> str:
        """The name of its package."""
        return self.packages[0].name

    @property
    def pin(self) -> str:
        """Its package with the version, as a requirement."""
        return f"{self.name}=={self.packages[0].version}"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The exact artifacts that one cell installs, sorted by name, and the settings for building them.

    `cached` are those that are in the cache alone, those of one group after another, each once; no two in a group have
    the same name.

    `build_systems` are those of the local packages; `uv_settings` are `uv.toml` settings that name the index for build
    requirements. `uv_flags` are the options with which `uv sync` installs the same packages in a job. `lock_folder` is
    where the lock is, relative to the matrix, if a profile names it; else it is empty. `tools` are in no lock.
    """

    cell: Cell
    lock_kind: LockKind
    lock_name: str
    uv_flags: tuple[str, ...]
    packages: tuple[SelectedPackage, ...]
    build_systems: tuple[BuildSystem, ...]
    uv_settings: Mapping[str, Any]
    cached: tuple[tuple[SelectedPackage, ...], ...] = ()
    lock_folder: str = ""
    tools: tuple[Tool, ...] = ()

    @property
    def downloads(self) -> tuple[SelectedPackage, ...]:
        """All packages, those that are only cached and those of tools too."""
        groups = (self.packages, *self.cached, *(tool.packages for tool in self.tools))
        return tuple(package for group in groups for package in group)

    @property
    def download_size(self) -> int | None:
        """Bytes to download, or None if the lock lacks a size."""
        sizes = [package.size for package in self.downloads]
        return None if None in sizes else sum(size for size in sizes if size is not None)


@dataclass(frozen=True, kw_only=True)
class Lock:
    """A parsed lock; with `uv_flags`, `uv sync` or `uv pip sync` installs the same packages in a job.

    `uv` is the version of uv that it needs, if builder's own may not read it. `members` are those of a workspace, and
    whether the dependencies of each are installed. Without `allows_source`, nothing is built from source. `cached`
    are the same lock with more groups, whose packages images have in uv's cache alone. `folder` is where a profile says
    that it is, relative to the matrix.
    """

    path: Path
    kind: LockKind
    pylock: Pylock
    extras: tuple[str, ...]
    groups: tuple[str, ...]
    uv_flags: tuple[str, ...] = ()
    uv: str | None = None
    members: Mapping[str, bool] = field(default_factory=dict)
    cached: tuple[Lock, ...] = ()
    folder: str = ""
    allows_source: bool = True

    @property
    def project(self) -> Path:
        """The folder of the project, which contains the lock."""
        return self.path.parent

    @property
    def installed_uv(self) -> str | None:
        """The version of uv that it installs: jobs run that one, because the environment comes first on PATH."""
        versions = {
            str(package.version) for package in self.pylock.packages if package.name == "uv" and package.version
        }
        return versions.pop() if len(versions) == 1 else None
