"""`makers`: one cell from nothing and with one package bumped, by each maker of layers; seconds and memory."""

from __future__ import annotations

import json
import secrets
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.change import open_stage
from bench.commands import BUILDER
from bench.figures import Sample, judged, say, table
from bench.memory import Weighed, weighed
from bench.projects import BASE, PYTHON, Bump, bumps
from bench.stage import Stage
from builder.errors import BuilderError

SECONDS_FOR_BUMP: Final = 5.0  # without an engine
SECONDS_FROM_NOTHING: Final = 20.0
MEGABYTES: Final = 400.0

_NOWHERE: Final = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}
_ALONE: Final = "native, no engine"
_WAYS: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "buildkit": ("buildkit", {}),
    "native": ("native", {}),
    _ALONE: ("native", _NOWHERE),
}
_STEPS: Final = ("make layers", "compress", "load", "send", "verify")


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """A cell on a base of its own, so that nothing of it is in the engine's cache, with an empty cache of builder."""

    stage: Stage
    matrix: Path
    cache: Path

    @classmethod
    def open(cls, stage: Stage) -> _Cell:
        """Push the base; this builds nothing."""
        group = f"makers-{secrets.token_hex(4)}"
        stage.push_base(BASE, PYTHON, group=group)
        repository = f"{stage.served.host}/{group}-images"
        path = stage.folder / f"{group}.toml"
        matrix = stage.project.write_matrix(path, repository, stage.bases(group, [BASE]), [PYTHON])
        return cls(stage=stage, matrix=matrix, cache=stage.folder / f"{group}-cache")

    def push(self, way: str) -> Weighed:
        """Build, verify and push the project as it is now."""
        maker, env = _WAYS[way]
        files = ("--file", str(self.matrix), "--lock", str(self.stage.project.lock))
        argv = (BUILDER, "build", "--push", "--json", "--maker", maker, *files)
        done = weighed(argv, cwd=self.stage.project.folder, env={**env, "BUILDER_CACHE_DIR": str(self.cache)})
        (cell,) = _cells(done)
        if cell["outcome"] != "pushed":
            raise BuilderError(f"builder build ended with {cell['outcome']}, not pushed")
        return done


def main(scratch: Path, rounds: int) -> str:
    """Measure round by round, and return the report."""
    with ExitStack() as stack:
        stage = open_stage("webshop", scratch, stack)
        assert stage is not None, "the example is always there"
        bump = next(bumps(stage.project, _Cell.open(stage).matrix), None)
        if bump is None:
            raise BuilderError("no package of the example can be bumped")
        taken: defaultdict[tuple[str, str], list[Weighed]] = defaultdict(list)
        for number in range(rounds):
            names = list(_WAYS)
            for way in names[number % 3 :] + names[: number % 3]:
                say(f"{way}: a cell from nothing, then {bump.name} bumped, round {number + 1} of {rounds}")
                first, second = _measure(stage, way, bump)
                taken[way, "from nothing"].append(first)
                taken[way, "bump"].append(second)
        return "\n".join(_report(taken, bump, rounds))


def _measure(stage: Stage, way: str, bump: Bump) -> tuple[Weighed, Weighed]:
    cell, before = _Cell.open(stage), stage.project.lock.read_bytes()
    first = cell.push(way)
    try:
        stage.project.lock.write_bytes(bump.lock)
        return first, cell.push(way)
    finally:
        stage.project.lock.write_bytes(before)


def _report(taken: Mapping[tuple[str, str], list[Weighed]], bump: Bump, rounds: int) -> Iterator[str]:
    yield f"makers: the example on one cell, verified and pushed; {bump.name} bumped; {rounds} rounds"
    rows = [
        (
            f"{way}, {what}", *_sample(done).cells, *(f"{_step(done, step):.2f}" for step in _STEPS),
            f"{statistics.median(each.largest for each in done):.0f} MB",
            f"{statistics.median(each.total for each in done):.0f} MB",
        )
        for (way, what), done in sorted(taken.items(), key=lambda pair: pair[0][1])
    ]  # fmt: skip
    yield table(("", "median", "range", *_STEPS, "largest process", "all"), rows)
    for what, target in (("bump", SECONDS_FOR_BUMP), ("from nothing", SECONDS_FROM_NOTHING)):
        seconds = _sample(taken[_ALONE, what]).median
        yield f"  target: {_ALONE}, {what}: at most {target:g} s: {seconds:.2f} s, {judged(seconds <= target)}"
    most = max(each.total for what in ("bump", "from nothing") for each in taken[_ALONE, what])
    yield f"  target: {_ALONE}: at most {MEGABYTES:g} MB: {most:.0f} MB, {judged(most <= MEGABYTES)}"


def _sample(done: list[Weighed]) -> Sample:
    return Sample(values=tuple(each.seconds for each in done))


def _step(done: list[Weighed], step: str) -> float:
    return statistics.median(float(_cells(each)[0]["timings"].get(step, 0.0)) for each in done)


def _cells(done: Weighed) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(done.stdout)["cells"]
    return cells
