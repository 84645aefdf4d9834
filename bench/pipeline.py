"""`pipeline`: the lint and test jobs of whole GitLab pipelines, as teams have them today and on baked images."""

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

SHORTER: Final = 20.0  # the dependency wait of today's pipeline, divided by that of the baked images

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
_SAVING: Final = frozenset({"uv cache prune --ci"})
_IMPORTED: Final = re.compile(r"imported cache .* in (?P<count>[\d.]+) (?P<unit>ms|s|min)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "min": 60.0}
_NOTES: Final = (
    "job start: from the runner's first line about a job to its script's first command, without the cache",
    "dependency wait: restoring the cache, and the commands that install; the sum of all jobs",
    "the tools themselves: every other command, including the first import of new packages",
    "caches saved: pruning and saving, after the last command",
    "caches are warm, except for what an index forbids pip to cache; all images are on the machine",
)


@dataclass(frozen=True, kw_only=True)
class Times:
    """The durations of a pipeline in seconds: in total, and of its jobs by purpose."""

    whole: float
    start: float
    wait: float
    tools: float
    saving: float


_PARTS: Final[Mapping[str, str]] = {
    "the whole pipeline": "whole",
    "job start": "start",
    "dependency wait": "wait",
    "the tools themselves": "tools",
    "caches saved": "saving",
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
        say(f"round {number} of {rounds}" if number else "a first round, which fills the caches and does not count")
        # In a new order each round, so that no variant always runs after the same heavy one.
        for name, which in random.Random(number).sample(sorted(taken), len(taken)):  # noqa: S311 - no secret
            times = _run(name, made[name], which, warm=number > 0)
            if number:
                taken[name, which].append(times)
    return taken


def _run(name: str, project: _Project, which: Which, *, warm: bool) -> Times:
    """Run a pipeline; raise BuilderError if it fails, or if a warm run has no cache."""
    take(project.folder, which)
    os.sync()  # do not wait for the writes of the variant before
    ran = run_pipeline(project.folder, *_JOBS[name], variables={"CI_REGISTRY_IMAGE": project.registry_image})
    if ran.exit_code:
        raise BuilderError(f"the pipeline {name}, {which}, failed with exit code {ran.exit_code}: {ran.text[-2000:]}")
    if warm and which == "before" and any(not _imported(job) for job in ran.jobs):
        raise BuilderError(f"a job of {name} found no cache: {ran.text[-2000:]}")
    parts = [_parts(job) for job in ran.jobs]
    start, wait, tools, saving = (sum(column) for column in zip(*parts, strict=True))
    return Times(whole=ran.seconds, start=start, wait=wait, tools=tools, saving=saving)


def _imported(job: JobRan) -> float:
    """How long gitlab-ci-local took to restore a job's caches, in seconds; 0 without caches."""
    matches = [_IMPORTED.fullmatch(line.text) for line in job.lines]
    return sum(float(match["count"]) * _UNITS[match["unit"]] for match in matches if match)


def _parts(job: JobRan) -> tuple[float, float, float, float]:
    """A job's start, dependency wait, tools and cache upload; a command lasts until the next one is printed."""
    began = [line for line in job.lines if line.text.startswith("$ ")]
    (end,) = [line.at for line in job.lines if line.text.startswith("finished in ")]
    spent = [
        (line.text.removeprefix("$ "), until - line.at)
        for line, until in zip(began, [*(line.at for line in began[1:]), end], strict=True)
    ]
    installing = sum(seconds for command, seconds in spent if command in _INSTALL)
    pruning = sum(seconds for command, seconds in spent if command in _SAVING)
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
