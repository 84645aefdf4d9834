"""Commands with the memory of all their processes, sampled from /proc."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from builder.errors import BuilderError

_TICK: Final = 0.002  # seconds between two samples
_END: Final = 3000  # characters of a failed command's output


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """A command that succeeded: seconds, what it printed to stdout, and megabytes of memory.

    `total` is the sum of the peaks of all its processes, which need not coincide, `largest` that of one. Both are NaN
    without /proc.
    """

    seconds: float
    stdout: str
    total: float
    largest: float


def weighed(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None) -> Weighed:
    """Run a command to its end, with these variables besides the present ones; raise BuilderError if it fails.

    The kernel keeps the peak of each process, so that sampling misses little.
    """
    peaks: dict[int, float] = {}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        started = time.monotonic()
        with subprocess.Popen(
            argv, cwd=cwd, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, stdout=out, stderr=errors
        ) as process:
            while process.poll() is None:
                peaks |= {pid: peak for pid in _tree(process.pid) if (peak := _peak_so_far(pid))}
                time.sleep(_TICK)
        seconds = time.monotonic() - started
        texts = []
        for file in (out, errors):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    if process.returncode:
        raise BuilderError(f"{' '.join(argv[:3])} ended with {process.returncode}: {''.join(texts)[-_END:]}")
    values = list(peaks.values()) or [float("nan")]
    return Weighed(seconds=seconds, stdout=texts[0], total=sum(values), largest=max(values))


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for children in Path("/proc", str(pid), "task").glob("*/children"):
        for child in _read(children).split():
            yield from _tree(int(child))


def _peak_so_far(pid: int) -> float:
    lines = _read(Path("/proc", str(pid), "status")).splitlines()
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")), 0.0)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:  # the process has ended
        return ""
