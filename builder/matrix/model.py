"""A matrix as parsed: platforms, cells, and the choices that narrow it."""

from __future__ import annotations

import platform as host
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from builder.errors import UsageError, listed
from builder.matrix.schema import Install
from builder.oci.reference import ImageRef, Mirrors

_ARCHITECTURES: Final[Mapping[str, str]] = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, kw_only=True)
class Platform:
    """Operating system and architecture of an image, in Docker's words."""

    architecture: str

    @classmethod
    def from_str(cls, text: str) -> Platform:
        """Parse `linux/amd64` or `linux/arm64`; raise UsageError on any other."""
        system, _, architecture = text.partition("/")
        architecture = "arm64" if architecture == "arm64/v8" else architecture
        if system != "linux" or architecture not in _ARCHITECTURES:
            raise UsageError(
                f"{text!r} is not a platform that images are made for",
                hint="write linux/amd64 or linux/arm64",
            )
        return cls(architecture=architecture)

    @classmethod
    def of_this_machine(cls) -> Platform:
        """The platform whose images run here without emulation."""
        machine = host.machine().lower()
        return cls(architecture="arm64" if machine in {"arm64", "aarch64"} else "amd64")

    @property
    def machine(self) -> str:
        """The architecture as `uname -m` and wheel tags name it."""
        return _ARCHITECTURES[self.architecture]

    def __str__(self) -> str:
        return f"linux/{self.architecture}"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One (Python version, base layer) of the matrix, with all that is said of it there."""

    python: str
    base: str
    image: ImageRef
    family: Literal["debian", "alpine"]
    libc: str
    packages: tuple[str, ...]
    platform: Platform

    @property
    def name(self) -> str:
        """`<python>-<base>`: the moving tag too."""
        return f"{self.python}-{self.base}"


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A parsed matrix: its cells in file order, and what holds for all of them."""

    source: str
    repository: str | None
    cells: tuple[Cell, ...]
    uv: ImageRef
    install: Install
    link_mode: str
    refresh: str
    compression: Literal["gzip", "zstd"]
    cache: Literal["none", "registry"]
    insecure: tuple[str, ...]
    aliases: tuple[tuple[str, str], ...]
    mirrors: Mirrors
    branch: str = ""

    def only(self, texts: Iterable[str]) -> Matrix:
        """Narrow to the cells that match one of the `python=3.13,base=alpine` texts; none given keeps all."""
        wanted = [_coordinates(text) for text in texts]
        cells = tuple(
            cell for cell in self.cells
            if not wanted or any(all(getattr(cell, axis) == value for axis, value in each.items()) for each in wanted)
        )  # fmt: skip
        for each in wanted:
            if not any(all(getattr(cell, axis) == value for axis, value in each.items()) for cell in self.cells):
                text = ",".join(f"{axis}={value}" for axis, value in each.items())
                raise UsageError(
                    f"--only {text} matches no cell of {self.source}",
                    hint=f"cells: {listed([c.name for c in self.cells])}",
                )
        names = {cell.name for cell in cells}
        return replace(self, cells=cells, aliases=tuple(pair for pair in self.aliases if pair[1] in names))

    def on(self, platform: Platform) -> Matrix:
        """The same cells for another platform."""
        return replace(self, cells=tuple(replace(cell, platform=platform) for cell in self.cells))

    def on_branch(self, name: str) -> Matrix:
        """The same cells under a branch's own tags: `<tag>-<slug>`, the slug as GitLab's CI_COMMIT_REF_SLUG has it.

        Raises UsageError where such a tag could be taken for another one.
        """
        slug = branch_slug(name)
        tags = [*(cell.name for cell in self.cells), *(alias for alias, _ in self.aliases)]
        taken = [tag for tag in tags if f"{tag}-{slug}" in tags]
        if taken:
            raise _wrong_branch(name, f"{taken[0]}-{slug} is a tag already")
        return replace(self, branch=slug)

    def moving_tags(self, cell: Cell) -> tuple[str, ...]:
        """The tags that jobs name: `<python>-<base>` and the aliases, on a branch with its slug behind them."""
        tags = (cell.name, *(alias for alias, name in self.aliases if name == cell.name))
        return tuple(f"{tag}-{self.branch}" for tag in tags) if self.branch else tags


def _coordinates(text: str) -> dict[str, str]:
    wanted: dict[str, str] = {}
    for part in text.split(","):
        axis, equals, value = part.strip().partition("=")
        if axis not in {"python", "base"} or not equals or not value or axis in wanted:
            raise UsageError(
                f"--only {text!r} is not a choice of cells",
                hint="write python=3.13 or python=3.13,base=alpine",
            )
        wanted[axis] = value
    return wanted


def branch_slug(name: str) -> str:
    """The branch as its tags end with it, made like CI_COMMIT_REF_SLUG; raise UsageError where none is left."""
    slug = re.sub("[^a-z0-9]", "-", name.lower())[:63].strip("-")
    if not slug or re.fullmatch("[0-9a-f]{12}", slug):
        raise _wrong_branch(name, "its tags could not be told from others")
    return slug


def _wrong_branch(name: str, why: str) -> UsageError:
    return UsageError(f"--branch {name!r}: {why}", hint="use another name, such as mr-42")
