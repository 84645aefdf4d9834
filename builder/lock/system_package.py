"""System packages that a build from source needs, and that slim images lack."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import tomli

from builder.lock.model import SelectedPackage
from builder.matrix.model import Cell

_GIT: Final = "git"
# Packages of a distribution that bring a compiler and the headers of its libc.
_COMPILERS: Final[Mapping[str, str]] = {"debian": "build-essential", "alpine": "build-base"}


_SSH: Final[Mapping[str, str]] = {"debian": "openssh-client", "alpine": "openssh-client-default"}


def is_known(name: str) -> bool:
    """Whether the table has what the project needs."""
    return name in _table()["projects"]


def missing_for(package: SelectedPackage, cell: Cell, *, is_compiled: bool, is_rust: bool = False) -> tuple[str, ...]:
    """The build packages to add to the cell's base, for a package that is built from source there.

    `is_compiled` says that its sources need a compiler, `is_rust` that this is one for Rust. Images that are not slim
    have a compiler and git.
    """
    if cell.family not in _COMPILERS or not (cell.family == "alpine" or "slim" in str(cell.image)):
        return ()
    table = _table()
    known = table["projects"].get(package.name)
    needed = [_GIT] if package.artifact == "vcs" else []
    needed += [_SSH[cell.family]] if package.is_over_ssh else []
    if known is not None or is_compiled:
        needed += [*table["compiler"][cell.family], *(known or {}).get(cell.family, ())]
    needed += ["cargo"] if is_rust else []
    present = {name.partition("=")[0] for name in (*cell.packages, *cell.build_packages)}
    if _COMPILERS[cell.family] in present:
        present |= {*table["compiler"][cell.family], "g++", "make"}
    return tuple(sorted({*needed} - present))


@lru_cache(maxsize=1)
def _table() -> Mapping[str, Any]:
    return tomli.loads(Path(__file__).with_name("system_packages.toml").read_text(encoding="utf-8"))
