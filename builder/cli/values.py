"""Completion of values: cells, tags and checks. Nothing here asks a network, because somebody holds the Tab key."""

from __future__ import annotations

from pathlib import Path

import click

from builder.errors import BuilderError
from builder.matrix.model import Matrix


def complete_only(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """What `--only` takes: an axis with each of its values, and a second one after a comma."""
    matrix = _matrix(context)
    if matrix is None:
        return []
    head, comma, _last = incomplete.rpartition(",")
    axes = {f"python={cell.python}": None for cell in matrix.cells} | {
        f"base={cell.base}": None for cell in matrix.cells
    }
    used = {part.partition("=")[0] for part in head.split(",")}
    return [
        f"{head}{comma}{axis}"
        for axis in axes
        if axis.partition("=")[0] not in used and _fits(head, comma, axis, incomplete)
    ]


def _fits(head: str, comma: str, axis: str, incomplete: str) -> bool:
    return f"{head}{comma}{axis}".startswith(incomplete)


def complete_tag(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The moving tags of the matrix."""
    matrix = _matrix(context)
    tags = [tag for cell in matrix.cells for tag in matrix.moving_tags(cell)] if matrix else []
    return [tag for tag in tags if tag.startswith(incomplete)]


def complete_check(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """The names of the checks."""
    from builder.verify.checks import CHECKS  # noqa: PLC0415 -- only here, so that other completions are fast

    return [name for name in CHECKS if name.startswith(incomplete)]


def _matrix(context: click.Context) -> Matrix | None:
    """The matrix of the command line so far, or the nearest one; None if there is none that can be read."""
    from builder.lock.discovery import find_matrix  # noqa: PLC0415
    from builder.matrix.file import read_matrix  # noqa: PLC0415

    named = context.params.get("matrix")
    try:
        path = Path(named) if named else find_matrix()
        return read_matrix(path) if path else None
    except BuilderError:
        return None
