"""A row of `change`: four cells from nothing, by the recipe one after the other, by bake, and by builder."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench.figures import Sample, judged, say, table
from bench.projects import PYTHONS
from bench.recipe import uv_cache
from bench.stage import Stage

OVER_RECIPE: Final = 1.5  # the recipe's seconds one after the other, divided by builder's
OVER_BAKE: Final = 1.0

_RECIPE: Final = "recipe, one after the other"
_BAKE: Final = "recipe, docker buildx bake"
_BUILDER: Final = "builder"


@dataclass(frozen=True, kw_only=True)
class FourCells:
    """Two Pythons on two bases, which are new under a group of their own; the repository and the cache are empty."""

    stage: Stage
    group: str

    @classmethod
    def open(cls, stage: Stage) -> FourCells:
        """Push new bases; this builds nothing."""
        cells = cls(stage=stage, group=f"cold-{secrets.token_hex(4)}")
        for name, python in itertools.product(stage.project.bases, PYTHONS):
            stage.push_base(name, python, group=cells.group)
        return cells

    @property
    def cache(self) -> Path:
        """The cache folder of builder."""
        return self.stage.folder / f"{self.group}-cache"

    @property
    def images(self) -> dict[str, str]:
        """For the recipe: its tags, with their bases."""
        host = self.stage.served.host
        return {
            f"{host}/{self.group}-recipe:{python}-{name}": f"{host}/{self.group}/{name}:{python}"
            for name, python in itertools.product(self.stage.project.bases, PYTHONS)
        }

    def matrix(self, also: str = "") -> Path:
        """Write the matrix for builder; with `also`, each base is in it under two names."""
        bases = self.stage.bases(self.group, list(self.stage.project.bases), also)
        path = self.stage.folder / f"{self.group}{also}.toml"
        return self.stage.project.write_matrix(path, f"{self.stage.served.host}/{self.group}-images", bases, PYTHONS)

    def push(self, matrix: Path) -> None:
        """Push with builder what is not in the registry."""
        self.stage.builder(matrix, self.cache, "--push")


def cold_row(stage: Stage, rounds: int) -> tuple[str, FourCells]:
    """Build four cells from nothing in each round; return the report, and builder's last cells."""
    taken: dict[str, list[float]] = {name: [] for name in _WAYS}
    last: list[FourCells] = []
    for number in range(rounds):
        names = list(_WAYS)
        for name in names[number % 3 :] + names[: number % 3]:
            say(f"{stage.project.name}: four cells from nothing: {name}, round {number + 1} of {rounds}")
            fresh = FourCells.open(stage)
            taken[name].append(_WAYS[name](fresh))
            last = [fresh] if name == _BUILDER else last
    return "\n".join(_report({name: Sample(values=tuple(values)) for name, values in taken.items()}, rounds)), last[0]


def _with_recipe(cells: FourCells) -> float:
    with uv_cache(next(iter(cells.images.values()))) as cache:
        return replace(cells.stage.recipe, cache=cache).build_and_push(cells.images)


def _with_bake(cells: FourCells) -> float:
    with uv_cache(next(iter(cells.images.values()))) as cache:
        return replace(cells.stage.recipe, cache=cache).bake(cells.images)


def _with_builder(cells: FourCells) -> float:
    return cells.stage.builder(cells.matrix(), cells.cache, "--push", expect="pushed").seconds


_WAYS: Final[Mapping[str, Callable[[FourCells], float]]] = {
    _RECIPE: _with_recipe,
    _BAKE: _with_bake,
    _BUILDER: _with_builder,
}


def _report(samples: Mapping[str, Sample], rounds: int) -> Iterator[str]:
    yield f"change: four cells (2 Pythons × 2 bases) from nothing, pushed; builder verifies; {rounds} rounds"
    seconds = samples[_BUILDER].median
    yield table(
        ("", "median", "range", "in builder's"),
        [(name, *sample.cells, f"{sample.median / seconds:.2f}") for name, sample in samples.items()],
    )
    for name, target in ((_RECIPE, OVER_RECIPE), (_BAKE, OVER_BAKE)):
        times = samples[name].median / seconds
        yield f"  target: {name}: at least {target:g} times as long: {times:.2f}, {judged(times >= target)}"
