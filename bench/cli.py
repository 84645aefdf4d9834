"""`cli`: the image with the command line tool: how large it is, and how long it takes to make and to start."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.commands import timed
from bench.figures import Sample, judged, say, table
from bench.subject import ROOT
from builder.oci.archive import ImageArchive
from builder.process import run

MEGABYTES_ABOVE_BASE: Final = 120.0  # compressed; 104 with docker, buildx, git, uv and the libraries
SECONDS_TO_MAKE: Final = 120.0  # without a cache; 108 beside four other builds, most of it apt-get
SECONDS_TO_START: Final = 1.0  # with the container; 0.65 beside other builds
_OWN_STEPS: Final = 3  # entries of the history that the Dockerfile adds: two RUN, and CMD, which has no layer


def main(rounds: int) -> str:
    """Make the image once without a cache, start it several times, and return the report."""
    name = f"builder-bench-cli:{secrets.token_hex(4)}"
    say("making the image with the command line tool")
    run(["make", "wheel"], cwd=ROOT).check("make wheel")
    try:
        started = time.monotonic()
        timed([str(ROOT / ".ci" / "image"), name, "--no-cache"], cwd=ROOT, env={"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"})
        made = time.monotonic() - started
        size, base = _sizes(name)
        starts = [
            timed(["docker", "run", "--rm", "--network", "none", name, "builder", "--version"], cwd=ROOT).seconds
            for _ in range(rounds)
        ]
    finally:
        run(["docker", "image", "rm", "--force", name])
    return "\n".join(_report(made, size, base, Sample(values=tuple(starts))))


def _sizes(name: str) -> tuple[float, float]:
    """Megabytes of all layers, and of those of its base, as the engine saves them."""
    with tempfile.TemporaryDirectory(prefix="builder-bench-") as scratch:
        path = Path(scratch, "image.tar")
        run(["docker", "image", "save", "--output", str(path), name]).check("docker image save")
        with ImageArchive(path) as archive:
            sizes = [layer.size for layer in archive.layers]
            own = sum(not entry.empty_layer for entry in (archive.config.history or ())[-_OWN_STEPS:])
            return sum(sizes) / 1e6, sum(sizes[: len(sizes) - own]) / 1e6


def _report(made: float, size: float, base: float, starts: Sample) -> Iterator[str]:
    yield "cli: the image with the command line tool, which the GitLab component's jobs run on"
    rows = [
        ("made, s", f"{made:.1f}"),
        ("base, MB", f"{base:.1f}"),
        ("above the base, MB", f"{size - base:.1f}"),
        ("docker run … builder --version, s", starts.cells[0]),
    ]
    yield table(("", ""), rows)
    for what, value, target, unit in (
        ("above the base", size - base, MEGABYTES_ABOVE_BASE, "MB"),
        ("made", made, SECONDS_TO_MAKE, "s"),
        ("started", starts.median, SECONDS_TO_START, "s"),
    ):
        yield f"  target: {what} at most {target:g} {unit}: {value:.3g} {unit}, {judged(value <= target)}"
