"""Completion of values: cells, tags and checks. Somebody holds the Tab key: a registry has a second to answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from builder.errors import BuilderError
from builder.matrix.model import Matrix

_PATIENCE: Final = 1.0  # seconds
_OWN: Final = "builder-"  # tags for builder itself, such as its journal


def complete_only(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """What `--only` takes: an axis with each of its values, and a second one after a comma."""
    matrix = _matrix(context)
    if matrix is None:
        return []
    head, comma, _last = incomplete.rpartition(",")
    pairs = [("python", cell.python) for cell in matrix.cells] + [("base", cell.base) for cell in matrix.cells]
    pairs += [("profile", cell.profile) for cell in matrix.cells if cell.profile]
    axes = dict.fromkeys(f"{name}={value}" for name, value in pairs)
    used = {part.partition("=")[0] for part in head.split(",")}
    return [
        f"{head}{comma}{axis}"
        for axis in axes
        if axis.partition("=")[0] not in used and _fits(head, comma, axis, incomplete)
    ]


def _fits(head: str, comma: str, axis: str, incomplete: str) -> bool:
    return f"{head}{comma}{axis}".startswith(incomplete)


def complete_tag(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The moving tags of the matrix, and the tags of its repository if the registry answers at once."""
    matrix = _matrix(context)
    tags = [tag for cell in matrix.cells for tag in matrix.moving_tags(cell)] if matrix else []
    tags += [tag for tag in _registered_tags(matrix, context.params.get("repository")) if not tag.startswith(_OWN)]
    return [tag for tag in dict.fromkeys(tags) if tag.startswith(incomplete)]


def _registered_tags(matrix: Matrix | None, repository: str | None) -> Sequence[str]:
    """The tags of the repository; none if the registry does not answer within a second, or refuses."""
    from builder.oci.reference import ImageRef, Mirrors  # noqa: PLC0415
    from builder.oci.registry import Registries  # noqa: PLC0415
    from builder.request import published_repository  # noqa: PLC0415

    logging.getLogger("builder.retries").setLevel(logging.ERROR)  # nothing is printed while somebody types
    stopped = threading.Event()
    timer = threading.Timer(_PATIENCE, stopped.set)
    timer.daemon = True
    timer.start()
    try:
        home = published_repository(matrix) if matrix else None
        home = ImageRef.from_str(repository) if repository else home
        registries = Registries(Mirrors(), insecure=matrix.insecure if matrix else (), stopped=stopped)
        return registries.fetch_tags(home) if home else ()
    except BuilderError:
        return ()
    finally:
        timer.cancel()


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
