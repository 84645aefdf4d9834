"""`wait`: how long a job waits for its dependencies, from `docker run` until Python has imported them."""

from __future__ import annotations

import io
import os
import random
import tarfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uv

from bench.figures import Sample, judged, say, table
from bench.job import BEGIN, READY, Job
from bench.subject import Subject, subject
from builder.contract import BUILDS
from builder.process import run
from builder.verify.checkout import checkout_tar

OVER_FLOOR: Final = 1.3  # the baked image, divided by floor + import
FASTER: Final = 8.0  # every alternative, divided by the baked image

ARCHIVES: Final = "/cache"  # where GitLab's docker executor mounts its local cache

_MODULES: Final = ("fastapi", "sqlalchemy", "alembic", "pandas", "boto3", "httpx", "jinja2", "pytest")
_IMPORT: Final = f"""python -c 'import {", ".join(_MODULES)}; print("{READY}", flush=True)'"""
# The same in all variants: the project is not one of its own dependencies, and the others would build it slower.
_SYNC: Final = "uv sync --frozen --no-install-project"
_PIP: Final = """\
export PIP_CACHE_DIR=$PWD/.cache/pip
python -m venv venv
. venv/bin/activate
pip install --quiet -r requirements.txt"""
_UV: Final = f"""\
export UV_CACHE_DIR=$PWD/.uv-cache UV_LINK_MODE=copy
{_SYNC}"""
_INTO_VENV: Final = ". .venv/bin/activate"

_FLOOR: Final = "an empty container"
_SELF: Final = "the import itself, in the baked image"
_BAKED: Final = "baked: uv sync --frozen, import"
_ALONE: Final = "baked: import"
_PROJECT: Final = "baked: uv sync --frozen with the project, import"
_OTHERS: Final = (
    "pip, restored cache and venv",
    "uv, restored cache",
    "uv, nothing restored",
)
_NOTES: Final = (
    "the import itself: in a new container, from the line that its shell prints before Python starts",
    "restored: the job unpacks an archive (tar, gzip) from a volume; nothing is downloaded or uploaded",
    "in baked: the median divided by that of the baked image; all images are on the machine",
)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A way to provide the dependencies: the image and script of a job, and the marks between which the time counts."""

    name: str
    image: str
    script: str
    since: str | None = None  # None: since `docker run`
    until: str = READY


def main(scratch: Path, rounds: int) -> str:
    """Prepare images and archives, run the variants round by round, and return the report."""
    made = subject(scratch)
    _export_requirements(made.project)
    with ExitStack() as stack:
        baked = stack.enter_context(made.layered())
        plain = stack.enter_context(made.image("the base image with uv, for the others", _plain))
        archives = stack.enter_context(made.engine.volume(plain, ARCHIVES, _empty_tar()))
        _keep_archives(made, plain, archives)
        taken = _rounds(made, _variants(baked, plain), archives, rounds)
    return _report(taken, rounds)


def _export_requirements(project: Path) -> None:
    argv = [uv.find_uv_bin(), "export", "--frozen", "--no-emit-project", "--format", "requirements.txt"]
    run([*argv, "--output-file", "requirements.txt"], cwd=project).check("uv export")


def _plain(dockerfile: str) -> str:
    """The base and uv of the rendered Dockerfile: the image of a job without builder."""
    wanted = [line for line in dockerfile.splitlines() if line.startswith(("FROM ", "COPY --link --from="))]
    assert len(wanted) == 2, "the rendered Dockerfile has changed: update the bench"
    return "\n".join(wanted) + "\n"


def _variants(baked: str, plain: str) -> tuple[Variant, ...]:
    pip, uv_restored, uv_nothing = _OTHERS
    return (
        Variant(name=_FLOOR, image=plain, script=f"echo {READY}"),
        Variant(name=_SELF, image=baked, script=f"echo {BEGIN}\n{_IMPORT}", since=BEGIN),
        Variant(name=_BAKED, image=baked, script=f"{_SYNC}\n{_IMPORT}"),
        Variant(name=_ALONE, image=baked, script=_IMPORT),
        Variant(name=_PROJECT, image=baked, script=f"uv sync --frozen\n{_IMPORT}"),
        Variant(name=pip, image=plain, script=f"tar xzf {ARCHIVES}/pip.tar.gz\n{_PIP}\n{_IMPORT}"),
        Variant(name=uv_restored, image=plain, script=f"tar xzf {ARCHIVES}/uv.tar.gz\n{_UV}\n{_INTO_VENV}\n{_IMPORT}"),
        Variant(name=uv_nothing, image=plain, script=f"{_SYNC}\n{_INTO_VENV}\n{_IMPORT}"),
    )


def _keep_archives(made: Subject, plain: str, archives: str) -> None:
    """Let a first job fill the caches, and keep what a runner would upload at its end.

    The archives are tar and gzip instead of GitLab's zip: its runner restores modes and links, but `zipfile` does not,
    and Debian's slim images have no unzip. Both formats deflate, and GNU tar is not slower.
    """
    for name, script, paths in (("pip", _PIP, ".cache/pip venv"), ("uv", _UV, ".uv-cache")):
        say(f"filling the caches with {name}")
        _in_checkout(made, plain, f"{script}\ntar czf {ARCHIVES}/{name}.tar.gz {paths}\necho {READY}", archives)


def _in_checkout(made: Subject, image: str, script: str, archives: str) -> dict[str, float]:
    """Run a job in a fresh checkout and return its marks."""
    with checkout_tar(made.checkout) as content, made.engine.volume(image, BUILDS, content) as builds:
        os.sync()  # do not wait for the writes of the variant before
        job = Job(image=image, script=script, workdir=made.checkout.path, volumes={builds: BUILDS, archives: ARCHIVES})
        return job.run()


def _rounds(made: Subject, variants: Sequence[Variant], archives: str, rounds: int) -> dict[str, Sample]:
    taken: dict[str, list[float]] = {variant.name: [] for variant in variants}
    for number in range(rounds + 1):
        say(f"round {number} of {rounds}" if number else "a warm-up round, which does not count")
        # In a new order each round, so that no variant always runs after the same heavy one.
        for variant in random.Random(number).sample(variants, len(variants)):  # noqa: S311 - no secret
            marks = _in_checkout(made, variant.image, variant.script, archives)
            if number:
                since = marks[variant.since] if variant.since else 0.0
                taken[variant.name].append(marks[variant.until] - since)
    return {name: Sample(values=tuple(values)) for name, values in taken.items()}


def _report(taken: dict[str, Sample], rounds: int) -> str:
    baked = taken[_BAKED].median
    floor = taken[_FLOOR].median + taken[_SELF].median
    rows = [(name, *sample.cells, f"{sample.median / baked:.2f}") for name, sample in taken.items()]
    rows.insert(2, ("floor: these two together", f"{floor:.2f} s", "", f"{floor / baked:.2f}"))
    ratio = baked / floor
    slower = {name: taken[name].median / baked for name in _OTHERS}
    return "\n".join(
        [
            f"wait: from `docker run` until {', '.join(_MODULES)} are imported, {rounds} rounds after a warm-up",
            table(("", "median", "range", "in baked"), rows),
            *(f"  {note}" for note in _NOTES),
            f"  target: baked within {OVER_FLOOR} of the floor: {ratio:.2f}, {judged(ratio <= OVER_FLOOR)}",
            *(
                f"  target: at least {FASTER:g} times slower than baked: {name}: {times:.1f}, {judged(times >= FASTER)}"
                for name, times in slower.items()
            ),
        ]
    )


def _empty_tar() -> io.BytesIO:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w"):
        pass
    content.seek(0)
    return content
