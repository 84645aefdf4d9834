"""System packages that a build from source needs, and that slim images lack."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import tomli

from builder.lock.model import SelectedPackage
from builder.matrix.model import Cell
from builder.matrix.schema import Family

_GIT: Final = "git"
# Packages of a distribution that bring a compiler and the headers of its libc.
_COMPILERS: Final[Mapping[Family, str]] = {"debian": "build-essential", "alpine": "build-base", "wolfi": "build-base"}
_BROUGHT: Final = {"g++", "make"}  # by such a package, besides the compiler
_SSH: Final[Mapping[Family, str]] = {
    "debian": "openssh-client", "alpine": "openssh-client-default",
    "rhel": "openssh-clients", "wolfi": "openssh-client",
}  # fmt: skip
_RUST: Final[Mapping[Family, str]] = {"debian": "cargo", "alpine": "cargo", "rhel": "cargo", "wolfi": "rust"}


def is_known(name: str) -> bool:
    """Whether the table has what the project needs."""
    return name in _table()["projects"]


def missing_for(package: SelectedPackage, cell: Cell, *, is_compiled: bool, is_rust: bool = False) -> tuple[str, ...]:
    """The build packages to add to the cell's base, for a package that is built from source there.

    `is_compiled` says that its sources need a compiler, `is_rust` that this is one for Rust. Some images have a
    compiler and git.
    """
    if _has_toolchain(cell):
        return ()
    table = _table()
    known = table["projects"].get(package.name)
    needed = [_GIT] if package.artifact == "vcs" else []
    needed += [_SSH[cell.family]] if package.is_over_ssh else []
    if known is not None or is_compiled:
        needed += [*table["compiler"][cell.family], *(known or {}).get(cell.family, ())]
    needed += [_RUST[cell.family]] if is_rust else []
    present = {name.partition("=")[0] for name in (*cell.packages, *cell.build_packages)}
    if _COMPILERS.get(cell.family) in present:
        present |= {*table["compiler"][cell.family], *_BROUGHT}
    return tuple(sorted({*needed} - present))


def _has_toolchain(cell: Cell) -> bool:
    """Whether the base has a compiler and git: the images of Debian that are not slim, and UBI's for a Python."""
    image = str(cell.image)
    if cell.family == "debian":
        return "slim" not in image
    return cell.family == "rhel" and "/python-" in image and "minimal" not in image


@lru_cache(maxsize=1)
def _table() -> Mapping[str, Any]:
    return tomli.loads(Path(__file__).with_name("system_packages.toml").read_text(encoding="utf-8"))
