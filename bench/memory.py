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

    `total` is the sum of the peaks of all its processes, which need not coincide, `largest` that of one, `at_once` what
    all had at one time, pages that they share counted for each. All are NaN without /proc.
    """

    seconds: float
    stdout: str
    total: float
    largest: float
    at_once: float


def weighed(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None) -> Weighed:
    """Run a command to its end, with these variables besides the present ones; raise BuilderError if it fails.

    The kernel keeps the peak of each process, so that sampling misses little.
    """
    peaks: dict[int, float] = {}
    most = 0.0
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        started = time.monotonic()
        with subprocess.Popen(
            argv, cwd=cwd, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, stdout=out, stderr=errors
        ) as process:
            while process.poll() is None:
                now = {pid: _memory(pid) for pid in _tree(process.pid)}
                peaks |= {pid: peak for pid, (peak, _) in now.items() if peak}
                most = max(sum(resident for _, resident in now.values()), most)
                time.sleep(_TICK)
        seconds = time.monotonic() - started
        texts = []
        for file in (out, errors):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    if process.returncode:
        raise BuilderError(f"{' '.join(argv[:3])} ended with {process.returncode}: {''.join(texts)[-_END:]}")
    values = list(peaks.values()) or [float("nan")]
    return Weighed(seconds=seconds, stdout=texts[0], total=sum(values), largest=max(values), at_once=most or values[0])


def _tree(pid: int) -> Iterator[int]:
    yield pid
    try:
        threads = [*Path(f"/proc/{pid}/task").iterdir()]
    except OSError:  # the process has ended
        return
    for thread in threads:
        for child in _read(thread / "children").split():
            yield from _tree(int(child))


def _memory(pid: int) -> tuple[float, float]:
    """Megabytes that a process had at most so far, and has now; 0 if it has ended."""
    lines = _read(Path("/proc", str(pid), "status")).splitlines()
    found = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("VmHWM:", "VmRSS:"))}
    peak, now = (int(found.get(name, "0")) * 1024 / 1e6 for name in ("VmHWM", "VmRSS"))
    return peak, now


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:  # the process has ended
        return ""
