"""`change`: what an image costs when one thing changed, side by side with the recipe of uv's own Docker guide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.bump import bump_row
from bench.cold import FourCells, cold_row
from bench.figures import say
from bench.projects import BASE, PROJECTS, PYTHON, open_project
from bench.recipe import Recipe, located, uv_cache
from bench.servers import registry
from bench.stage import OneCell, Stage
from bench.subject import remove_images
from bench.unchanged import base_row, local_row, night_row
from builder.oci.reference import Mirrors
from builder.oci.registry import Registries

ROWS: Final = ("local", "base", "bump", "cold", "night")


def main(scratch: Path, rounds: int, rows: Sequence[str], projects: Sequence[str]) -> Iterator[str]:
    """Measure rows of the named projects; yield the report of each as soon as it is there."""
    for name in projects or PROJECTS:
        with ExitStack() as stack:
            stage = open_stage(name, scratch, stack)
            if stage is None:
                yield f"change: {name} is left out: there are no shared locks next to the repository"
                continue
            yield from _rows(stage, rows or ROWS, rounds)


def open_stage(name: str, scratch: Path, stack: ExitStack) -> Stage | None:
    """Open a project with a registry, until the stack is closed; None if its lock is not there."""
    project = open_project(name, scratch)
    if project is None:
        return None
    folder = scratch / f"change-{name}"
    folder.mkdir()
    served = stack.enter_context(registry(folder / "registry"))
    stack.callback(remove_images, f"{served.host}/*", f"{served.host}/*/*")
    cache = stack.enter_context(uv_cache(located(project.bases[BASE]["image"].format(python=PYTHON))))
    return Stage(
        project=project, folder=folder, served=served, registries=Registries(Mirrors()),
        recipe=Recipe(folder=project.folder, files=folder, uv_version=project.uv_version, cache=cache),
    )  # fmt: skip


def _rows(stage: Stage, rows: Sequence[str], rounds: int) -> Iterator[str]:
    yield f"change: {stage.project.name}, one cell: Python {PYTHON} on {BASE}"
    if {"local", "base", "bump"} & set(rows):
        yield from _one_cell(stage, rows, rounds)
    cells = None
    if "cold" in rows:
        report, cells = cold_row(stage, rounds)
        yield report
    if "night" in rows:
        yield night_row(cells or FourCells.open(stage), rounds)


def _one_cell(stage: Stage, rows: Sequence[str], rounds: int) -> Iterator[str]:
    cell = OneCell.open(stage)
    say(f"{stage.project.name}: yesterday's images")
    yesterday = cell.make("yesterday")
    if "local" in rows:
        yield local_row(cell, rounds)
    if "base" in rows:
        report, yesterday = base_row(cell, rounds)
        yield report
    if "bump" in rows:
        yield bump_row(cell, rounds, yesterday)
