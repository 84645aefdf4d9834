"""Rows of `change`: nothing moved, on this machine and in the registry, and a base whose digest alone moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from bench.bump import timings_lines
from bench.cold import FourCells
from bench.figures import Sample, judged, say, table
from bench.projects import BASE, PYTHON
from bench.stage import VARIANTS, Made, OneCell, Variant
from builder.contract import LAYER_KEY

LOCAL_SECONDS: Final = 1.0  # a local build of one cell
NIGHT_SECONDS: Final = 1.0  # a push of eight cells
MOVED_SECONDS: Final = 5.0  # a cell on a new base


def local_row(cell: OneCell, rounds: int) -> str:
    """Build what was built; return the report."""
    say(f"{cell.stage.project.name}: building what has not changed, {rounds} rounds")
    taken: dict[Variant, list[float]] = {variant: [] for variant in VARIANTS}
    for number in range(rounds + 1):  # round 0 does not count
        recipe = cell.stage.recipe.build(cell.recipe_image("same"), cell.base)
        built = cell.stage.builder(cell.matrix, cell.cache, expect="up-to-date").seconds
        if number:
            taken["recipe"].append(recipe)
            taken["builder"].append(built)
    samples = {variant: Sample(values=tuple(values)) for variant, values in taken.items()}
    seconds = samples["builder"].median
    rows = [(variant, *sample.cells, f"{sample.median / seconds:.1f}") for variant, sample in samples.items()]
    return "\n".join(
        [
            f"change: nothing moved, local: `docker build` and `builder build`, {rounds} rounds",
            table(("", "median", "range", "in builder's"), rows),
            f"  target: at most {LOCAL_SECONDS:g} s: {seconds:.2f} s, {judged(seconds <= LOCAL_SECONDS)}",
        ]
    )


def night_row(cells: FourCells, rounds: int) -> str:
    """Push eight cells of which all are in the registry, without an engine; return the report."""
    matrix = cells.matrix(also="-too")
    say(f"{cells.stage.project.name}: pushing eight cells, two names for each base")
    cells.push(matrix)
    no_engine = {"DOCKER_HOST": f"unix://{cells.stage.folder}/no-engine.sock"}
    values, asked = [], 0
    for _ in range(rounds):
        before = cells.stage.served.requests()
        values.append(cells.stage.builder(matrix, cells.cache, "--push", expect="up-to-date", env=no_engine).seconds)
        asked = cells.stage.served.requests() - before
    sample = Sample(values=tuple(values))
    return "\n".join(
        [
            f"change: nothing moved, `builder build --push` of eight cells without an engine, {rounds} rounds",
            table(("", "median", "range", "requests"), [("eight cells", *sample.cells, str(asked))]),
            "  requests: to the registry of the images and bases; one more, for uv, goes to another",
            f"  target: at most {NIGHT_SECONDS:g} s: {sample.median:.2f} s, {judged(sample.median <= NIGHT_SECONDS)}",
        ]
    )


def base_row(cell: OneCell, rounds: int) -> tuple[str, dict[Variant, Made]]:
    """Move the base's digest in each round; return the report, and what was pushed last."""
    taken: list[dict[Variant, Made]] = []
    made = sent = 0
    for number in range(rounds):
        say(f"{cell.stage.project.name}: a new base, round {number + 1} of {rounds}")
        cell.stage.push_base(BASE, PYTHON, group="one")
        known = _recorded(cell)
        taken.append(cell.make(f"base-{number}", first=VARIANTS[number % 2]))
        layers = cell.stage.dependency_layers(taken[-1]["builder"].image)
        sent += sum(layer.digest in taken[-1]["builder"].sent for layer in layers)
        made += len({(layer.annotations or {}).get(LAYER_KEY, "") for layer in layers} & (_recorded(cell) - known))
    return "\n".join(_base_report(taken, made, sent)), taken[-1]


def _recorded(cell: OneCell) -> set[str]:
    """The keys of the layers that were made on this machine."""
    return {path.stem for path in (cell.cache / "layers" / "keys").glob("*.json")}


def _base_report(taken: Sequence[Mapping[Variant, Made]], made: int, sent: int) -> Iterator[str]:
    yield f"change: the base's digest moved, its Python is the same: build, verify and push; {len(taken)} rounds"
    samples = {variant: Sample(values=tuple(each[variant].seconds for each in taken)) for variant in VARIANTS}
    seconds = samples["builder"].median
    rows = [
        (variant, *sample.cells, f"{sample.median / seconds:.1f}", f"{taken[-1][variant].new_bytes:,}")
        for variant, sample in samples.items()
    ]
    yield table(("", "median", "range", "in builder's", "new bytes, last"), rows)
    yield from timings_lines([each["builder"] for each in taken])
    yield f"  target: no layer of dependencies made or sent: {made} made, {sent} sent, {judged(not made and not sent)}"
    yield f"  target: at most {MOVED_SECONDS:g} s a cell: {seconds:.2f} s, {judged(seconds <= MOVED_SECONDS)}"
