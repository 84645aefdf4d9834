"""Cells without a matrix."""

from __future__ import annotations

from dataclasses import replace

from builder.matrix.model import Cell, Platform
from builder.matrix.schema import Family
from builder.oci.reference import ImageRef


def debian(
    python: str = "3.12",
    *,
    libc: str = "2.36",
    architecture: str = "amd64",
    packages: tuple[str, ...] = (),
    build_packages: tuple[str, ...] = (),
) -> Cell:
    """A cell on bookworm-slim."""
    cell = _cell(python, "bookworm-slim", f"{python}-slim-bookworm", "debian", libc, architecture, packages)
    return replace(cell, build_packages=build_packages)


def alpine(
    python: str = "3.12", *, libc: str = "1.2", architecture: str = "amd64", packages: tuple[str, ...] = ()
) -> Cell:
    """A cell on alpine."""
    return _cell(python, "alpine", f"{python}-alpine", "alpine", libc, architecture, packages)


def _cell(
    python: str,
    base: str,
    tag: str,
    family: Family,
    libc: str,
    architecture: str,
    packages: tuple[str, ...],
) -> Cell:
    return Cell(
        python=python,
        base=base,
        image=ImageRef.from_str(f"python:{tag}"),
        family=family,
        libc=libc,
        packages=packages,
        platform=Platform(architecture=architecture),
    )
