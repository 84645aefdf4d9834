"""`locks`: the time of a large preflight, and of a requirements file with many pins, from nothing and again."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import tomli_w

from bench.figures import Sample, judged, say, table
from bench.index import VERSIONS, digest, filenames
from builder.lock.preflight import preflight
from builder.lock.read import read_lock
from builder.matrix.model import Cell, Platform
from builder.matrix.schema import Install
from builder.oci.reference import ImageRef

PACKAGES: Final = 500
CELLS: Final = 8
PINS: Final = 300
SECONDS: Final = {"preflight": 3.0, "requirements, from nothing": 3.0, "requirements, again": 1.0}


def main(scratch: Path, rounds: int) -> str:
    """Time both round by round, and return the report."""
    lock = _pylock(scratch)
    taken: dict[str, list[float]] = {name: [] for name in SECONDS}
    with _index() as url:
        requirements = _requirements(scratch, url)
        say(f"timing locks, {rounds} rounds")
        for _ in range(rounds):
            shutil.rmtree(scratch / "cache", ignore_errors=True)
            with _timed(taken["preflight"]):
                preflight(dict.fromkeys(_cells(), read_lock(lock, Install())))
            for name in ("requirements, from nothing", "requirements, again"):
                with _timed(taken[name]):
                    read_lock(requirements, Install(), scratch / "cache")
    samples = {name: Sample(values=tuple(values)) for name, values in taken.items()}
    rows = [(name, *sample.cells) for name, sample in samples.items()]
    targets = [
        f"  target: {name} under {SECONDS[name]:g} s: {sample.median:.3g} s, {judged(sample.median < SECONDS[name])}"
        for name, sample in samples.items()
    ]
    head = f"locks: {PACKAGES} packages × {CELLS} cells; {PINS} pins, {VERSIONS} versions each; {rounds} rounds"
    return "\n".join([head, table(("", "median", "range"), rows), *targets])


@contextlib.contextmanager
def _timed(into: list[float]) -> Iterator[None]:
    started = time.monotonic()
    yield
    into.append(time.monotonic() - started)


@contextlib.contextmanager
def _index() -> Iterator[str]:
    """Run the index; yield its URL."""
    argv = (sys.executable, "-m", "bench.index")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip() if process.stdout else ''}/simple"
        finally:
            process.terminate()


def _requirements(scratch: Path, url: str) -> Path:
    lines = [f"--index-url {url}"]
    for number in range(PINS):
        hashes = " ".join(f"--hash=sha256:{digest(name)}" for name in filenames(f"project{number}", 1))
        lines.append(f"project{number}==1.0 {hashes}")
    path = scratch / "requirements.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _pylock(scratch: Path) -> Path:
    packages = [
        {
            "name": f"project{number}",
            "version": "1.0",
            "marker": "python_full_version >= '3.8' and (sys_platform == 'linux' or platform_machine == 'aarch64')",
            "wheels": [
                {"url": f"https://files.invalid/{name}", "hashes": {"sha256": digest(name)}, "size": 1000}
                for name in filenames(f"project{number}", 1)
                if name.endswith(".whl")
            ],
        }
        for number in range(PACKAGES)
    ]
    path = scratch / "pylock.toml"
    path.write_text(
        tomli_w.dumps({"lock-version": "1.0", "created-by": "bench", "packages": packages}), encoding="utf-8"
    )
    return path


def _cells() -> list[Cell]:
    """Half of the cells are on Alpine, which can install none of the packages."""
    return [
        Cell(
            python=f"3.{minor}", base=family, image=ImageRef.from_str(f"python:3.{minor}-{family}"), family=family,
            libc="2.36" if family == "debian" else "1.2", packages=(), platform=Platform(architecture="amd64"),
        )
        for minor in range(11, 11 + CELLS // 2)
        for family in ("debian", "alpine")
    ]  # fmt: skip
