"""Rows of `change`: one small package bumped, and the pull of that image by an engine that has yesterday's."""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.commands import timed
from bench.figures import Sample, judged, say, table
from bench.projects import Bump, bumps
from bench.servers import empty_engine
from bench.stage import VARIANTS, Made, OneCell, Variant
from builder.errors import BuilderError
from builder.oci.reference import ImageRef
from builder.process import run

TIMES_FASTER: Final = 4.0  # the recipe's seconds, divided by builder's
SHARE: Final = 0.01  # new bytes, of those of all dependencies
PULL_SECONDS: Final = 1.0
PULL_TIMES: Final = 8.0  # a full pull, divided by one on top of yesterday's image

Round = Mapping[Variant, Made]


def bump_row(cell: OneCell, rounds: int, yesterday: Round) -> str:
    """Bump a package in each round, one near the median in size; then pull what was pushed. Return the report."""
    project = cell.stage.project
    chosen = list(itertools.islice(bumps(project, cell.matrix), rounds))
    if not chosen:
        raise BuilderError(f"no package of {project.name} can be bumped")
    before, taken = project.lock.read_bytes(), []
    try:
        for number, bump in enumerate(chosen):
            say(f"{project.name}: bumping {bump.name}, {number + 1} of {len(chosen)}")
            project.lock.write_bytes(bump.lock)
            taken.append(cell.make(f"bump-{number}", first=VARIANTS[number % 2]))
    finally:
        project.lock.write_bytes(before)
    pulled = _Pulls(cell, yesterday).rounds(taken, rounds)
    return "\n".join([*_bump_report(cell, chosen, taken), *_pull_report(pulled, rounds)])


def _bump_report(cell: OneCell, chosen: Sequence[Bump], taken: Sequence[Round]) -> Iterator[str]:
    yield f"change: one small package bumped: build, verify and push; {len(taken)} rounds, each with another package"
    yield "  packages: " + ", ".join(f"{bump.name} ({bump.size:,} bytes)" for bump in chosen)
    samples = {variant: Sample(values=tuple(made[variant].seconds for made in taken)) for variant in VARIANTS}
    sent = {variant: statistics.median(made[variant].new_bytes for made in taken) for variant in VARIANTS}
    layers = [cell.stage.dependency_layers(made["builder"].image) for made in taken]
    new = [
        [each for each in found if each.digest in made["builder"].sent]
        for found, made in zip(layers, taken, strict=True)
    ]
    shares = [
        made["builder"].new_bytes / sum(each.size for each in found) for found, made in zip(layers, taken, strict=True)
    ]
    rows = [
        (
            variant,
            *samples[variant].cells,
            f"{samples[variant].median / samples['builder'].median:.1f}",
            f"{sent[variant]:,.0f}",
        )
        for variant in VARIANTS
    ]
    yield table(("", "median", "range", "in builder's", "new bytes, median"), rows)
    yield from timings_lines([made["builder"] for made in taken])
    share, most = statistics.median(shares), max(map(len, new))
    times = samples["recipe"].median / samples["builder"].median
    yield f"  target: at least {TIMES_FASTER:g} times faster: {times:.1f}, {judged(times >= TIMES_FASTER)}"
    yield (
        f"  target: new bytes at most {SHARE:.0%} of the dependencies': "
        f"{share:.2%} (at most {max(shares):.2%}), {judged(share <= SHARE)}"
    )
    yield f"  target: one layer of dependencies sent: {most} of {len(layers[-1])}, {judged(most <= 1)}"


def timings_lines(made: Sequence[Made]) -> Iterator[str]:
    """Where builder's time went: the median of each step, in the order in which the steps ended."""
    steps = dict.fromkeys(step for each in made for step in each.timings)
    parts = [f"{step} {statistics.median(each.timings.get(step, 0.0) for each in made):.2f}" for step in steps]
    yield f"  builder's seconds: {', '.join(parts)}; the rest: reading, planning, moving the tags"


class _Pulls:
    """Pulls into an engine that has the base, in memory."""

    def __init__(self, cell: OneCell, yesterday: Round) -> None:
        self._cell, self._yesterday = cell, yesterday
        self._folder = cell.stage.folder / "engine"

    def rounds(self, taken: Sequence[Round], rounds: int) -> dict[tuple[Variant, str], Sample]:
        """Pull on top of yesterday's image, and in full; by variant and `difference` or `full`."""
        seconds: dict[tuple[Variant, str], list[float]] = {}
        with empty_engine(self._folder, in_memory=True) as address:
            self._pull(address, self._cell.base)
            for number in range(rounds + 1):
                say(f"pulling, round {number} of {rounds}" if number else "a first pull, which does not count")
                for variant in VARIANTS[:: -1 if number % 2 else 1]:
                    today = taken[number % len(taken)][variant].image
                    difference, full = self._both(address, self._yesterday[variant].image, today)
                    if number:
                        seconds.setdefault((variant, "difference"), []).append(difference)
                        seconds.setdefault((variant, "full"), []).append(full)
        return {key: Sample(values=tuple(values)) for key, values in seconds.items()}

    def _both(self, address: str, yesterday: str, today: str) -> tuple[float, float]:
        self._pull(address, yesterday)
        difference, _ = self._pull(address, today)
        self._remove(address, yesterday, today)
        full, there = self._pull(address, today)
        self._remove(address, today)
        manifest = self._cell.stage.registries.fetch_manifest(ImageRef.from_str(self._cell.base))
        if manifest is None or there > len(manifest.body.layers):
            raise BuilderError(f"the engine at {address} had {there} layers before a full pull, more than the base's")
        return difference, full

    def _pull(self, address: str, image: str) -> tuple[float, int]:
        """Pull an image; return the seconds, and how many of its layers were there."""
        done = timed(["docker", "--host", address, "pull", image], cwd=Path(os.sep))
        return done.seconds, done.stdout.count("Already exists")

    def _remove(self, address: str, *images: str) -> None:
        run(["docker", "--host", address, "image", "rm", "--force", *images]).check("docker image rm")


def _pull_report(pulled: Mapping[tuple[Variant, str], Sample], rounds: int) -> Iterator[str]:
    yield f"\nchange: the pull of that image, in memory, base there; {rounds} rounds after a warm-up"
    kinds = {"difference": "yesterday's image there", "full": "full"}
    rows = [
        (f"{variant}, {name}", *pulled[variant, kind].cells, f"{pulled[variant, kind].median / _median(pulled):.1f}")
        for variant in VARIANTS
        for kind, name in kinds.items()
    ]
    yield table(("", "median", "range", "in builder's"), rows)
    seconds, times = _median(pulled), pulled["builder", "full"].median / _median(pulled)
    yield f"  target: at most {PULL_SECONDS:g} s: {seconds:.2f} s, {judged(seconds <= PULL_SECONDS)}"
    yield f"  target: at least {PULL_TIMES:g} times faster than a full one: {times:.1f}, {judged(times >= PULL_TIMES)}"


def _median(pulled: Mapping[tuple[Variant, str], Sample]) -> float:
    return pulled["builder", "difference"].median
