"""`pipeline`: the lint and test jobs of whole GitLab pipelines, as teams have them and on baked images."""

from __future__ import annotations

import os
import random
import re
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from bench.figures import Sample, judged, say, table
from bench.subject import remove_images
from builder.errors import BuilderError
from builder.process import run
from tests.integration.gitlab import JobRan, public_images, run_pipeline
from tests.integration.pairs import PUBLIC_IMAGES, lock_of, locked, take

SHORTER: Final = 20.0  # the dependency wait of today's pipeline, in that of the baked image's

Which = Literal["before", "after"]

_BUILDER: Final = str(Path(sys.executable).with_name("builder"))
_JOBS: Final[Mapping[str, tuple[str, ...]]] = {"pip-cache-and-venv": ("pylint", "test"), "uv-cache": ("lint", "test")}
_INSTALL: Final = frozenset(
    {
        "python -m venv venv",
        "source venv/bin/activate",
        "pip install -r requirements.txt",
        "uv sync --frozen || uv sync",
    }
)
_PUT_AWAY: Final = frozenset({"uv cache prune --ci"})
_IMPORTED: Final = re.compile(r"imported cache .* in (?P<count>[\d.]+) (?P<unit>ms|s|min)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "min": 60.0}
_NOTES: Final = (
    "job start: from the runner's first word about a job to its script's first command, without the cache",
    "dependency wait: the cache brought into the job, and the commands that install; of all jobs together",
    "the tools themselves: every other command, the first import of what was just installed included",
    "caches put away: pruned and taken out of the job, after its last command",
    "caches are warm, but what an index forbids to keep pip does not keep; all images are on the machine",
)


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds of a pipeline from its start to its end, and those of its jobs by what they went into."""

    whole: float
    start: float
    wait: float
    tools: float
    put_away: float


_PARTS: Final[Mapping[str, str]] = {
    "the whole pipeline": "whole",
    "job start": "start",
    "dependency wait": "wait",
    "the tools themselves": "tools",
    "caches put away": "put_away",
}


def main(scratch: Path, rounds: int) -> str:
    """Build the images, run the pipelines round by round, and return the report."""
    with ExitStack() as stack:
        stack.enter_context(public_images(*PUBLIC_IMAGES))
        made = {name: stack.enter_context(_project(scratch / "pairs", name)) for name in _JOBS}
        taken = _rounds(made, rounds)
    parts = [_section(name, {which: taken[name, which] for which in get_args(Which)}) for name in _JOBS]
    head = f"pipeline: lint and test jobs in gitlab-ci-local, {rounds} rounds after one that fills the caches"
    return "\n".join([head, *parts, *(f"  {note}" for note in _NOTES)])


@dataclass(frozen=True, kw_only=True)
class _Project:
    folder: Path
    registry_image: str


@contextmanager
def _project(into: Path, name: str) -> Iterator[_Project]:
    """A locked copy of an example and its image; the image is removed at the end."""
    say(f"building the image of {name}")
    folder = locked(name, into)
    registry_image = f"builder-bench-{os.getpid()}-{secrets.token_hex(3)}"
    try:
        argv = [_BUILDER, "build", "--lock", lock_of(folder)]
        run(argv, cwd=folder, env={**os.environ, "CI_REGISTRY_IMAGE": registry_image}).check("builder build")
        yield _Project(folder=folder, registry_image=registry_image)
    finally:
        remove_images(f"{registry_image}/ci")


def _rounds(made: Mapping[str, _Project], rounds: int) -> dict[tuple[str, Which], list[Times]]:
    taken: dict[tuple[str, Which], list[Times]] = {(name, which): [] for name in made for which in get_args(Which)}
    for number in range(rounds + 1):
        say(f"round {number} of {rounds}" if number else "a round that fills the caches and does not count")
        # In another order each round: what a heavy variant leaves behind must not always fall to the same next one.
        for name, which in random.Random(number).sample(sorted(taken), len(taken)):  # noqa: S311 - no secret
            times = _run(name, made[name], which, warm=number > 0)
            if number:
                taken[name, which].append(times)
    return taken


def _run(name: str, project: _Project, which: Which, *, warm: bool) -> Times:
    """Run a pipeline; raise BuilderError where it fails, or has no cache although it should by now."""
    take(project.folder, which)
    os.sync()  # what the one before has written is not this one's to wait for
    ran = run_pipeline(project.folder, *_JOBS[name], variables={"CI_REGISTRY_IMAGE": project.registry_image})
    if ran.exit_code:
        raise BuilderError(f"the pipeline {name}, {which}, ended with {ran.exit_code}: {ran.text[-2000:]}")
    if warm and which == "before" and any(not _imported(job) for job in ran.jobs):
        raise BuilderError(f"a job of {name} found no cache: {ran.text[-2000:]}")
    parts = [_parts(job) for job in ran.jobs]
    start, wait, tools, put_away = (sum(column) for column in zip(*parts, strict=True))
    return Times(whole=ran.seconds, start=start, wait=wait, tools=tools, put_away=put_away)


def _imported(job: JobRan) -> float:
    """How long the caches took to be brought into a job, as gitlab-ci-local says; 0 where there are none."""
    matches = [_IMPORTED.fullmatch(line.text) for line in job.lines]
    return sum(float(match["count"]) * _UNITS[match["unit"]] for match in matches if match)


def _parts(job: JobRan) -> tuple[float, float, float, float]:
    """A job's start, dependency wait, tools and caches put away: a command lasts until the next one is printed."""
    began = [line for line in job.lines if line.text.startswith("$ ")]
    (end,) = [line.at for line in job.lines if line.text.startswith("finished in ")]
    spent = [
        (line.text.removeprefix("$ "), until - line.at)
        for line, until in zip(began, [*(line.at for line in began[1:]), end], strict=True)
    ]
    installing = sum(seconds for command, seconds in spent if command in _INSTALL)
    pruning = sum(seconds for command, seconds in spent if command in _PUT_AWAY)
    return (
        began[0].at - job.lines[0].at - _imported(job),
        installing + _imported(job),
        sum(seconds for _, seconds in spent) - installing - pruning,
        pruning + job.lines[-1].at - end,
    )


def _section(name: str, taken: Mapping[Which, Sequence[Times]]) -> str:
    def sample(which: Which, part: str) -> Sample:
        return Sample(values=tuple(getattr(times, part) for times in taken[which]))

    rows = [
        (
            title,
            *sample("before", part).cells,
            *sample("after", part).cells,
            _ratio(sample("before", part), sample("after", part)),
        )
        for title, part in _PARTS.items()
    ]
    shorter = sample("before", "wait").median / sample("after", "wait").median
    verdict = f"{shorter:.1f}, {judged(shorter >= SHORTER)}"
    return "\n".join(
        [
            table((name, "before", "range", "after", "range", "before/after"), rows),
            f"  target: dependency wait at least {SHORTER:g} times shorter: {verdict}",
        ]
    )


def _ratio(before: Sample, after: Sample) -> str:
    return f"{before.median / after.median:.1f}" if after.median > 0.01 else ""
