"""`plan`: the time and memory of `builder plan` and `builder --help`, with all their processes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import tomli
import tomli_w

from bench.figures import Sample, judged, say, table
from bench.subject import EXAMPLE, ROOT, locked_example
from builder.process import run

LOCKS: Final = ROOT.parent / "shared" / "locks" / "uv"
SECONDS_TO_PLAN: Final = 3.0
MEGABYTES_TO_PLAN: Final = 300.0
SECONDS_TO_HELP: Final = 0.3

_BUILDER: Final = str(Path(sys.executable).with_name("builder"))  # the console script, as users start it
_FLOOR: Final = (sys.executable, "-c", "pass")
_HELP: Final = (_BUILDER, "--help")
_TICK: Final = 0.002  # seconds between two samples of the memory


def main(scratch: Path, rounds: int) -> str:
    """Time the commands round by round, measure their memory, and return the report."""
    lock = largest_lock(scratch)
    plan = (_BUILDER, "plan", "-f", str(_matrix(scratch)), "--lock", str(lock))
    run(plan, cwd=scratch).check("builder plan")
    say(f"timing builder plan and builder --help, {rounds} rounds")
    times = _timed({"python -c pass": _FLOOR, "builder --help": _HELP, "builder plan": plan}, scratch, rounds)
    memory = {"python -c pass": _peak(_FLOOR), "builder --help": _peak(_HELP), "builder plan": _peak(plan)}
    floor = times["python -c pass"].median
    rows = [
        (name, *taken.cells, f"{taken.median / floor:.1f}", f"{memory[name]:.0f} MB") for name, taken in times.items()
    ]
    return "\n".join(
        [
            f"plan: {_described(lock)}, {rounds} rounds",
            table(("", "median", "range", "ratio", "peak memory"), rows),
            *_targets(times, memory["builder plan"]),
        ]
    )


def largest_lock(scratch: Path) -> Path:
    """The largest real uv.lock in the folder next to the repository; if there is none, the example's."""
    locks = sorted(LOCKS.glob("*/uv.lock"), key=lambda path: path.stat().st_size)
    return locks[-1] if locks else locked_example(scratch) / "uv.lock"


def _described(lock: Path) -> str:
    size = f"{lock.stat().st_size / 1e6:.1f} MB"
    if LOCKS in lock.parents:
        return f"the largest of the shared locks, {lock.parent.name} ({size})"
    return f"the example's lock ({size}), because there are no shared locks next to the repository"


def _matrix(scratch: Path) -> Path:
    """The example's matrix with one cell and without groups, which not every lock has."""
    table_ = tomli.loads((EXAMPLE / "matrix.toml").read_text(encoding="utf-8"))
    table_.pop("install", None)
    table_ |= {"python": ["3.13"], "base": ["bookworm-slim"]}
    table_["bases"] = {"bookworm-slim": table_["bases"]["bookworm-slim"]}
    path = scratch / "plan-matrix.toml"
    path.write_text(tomli_w.dumps(table_), encoding="utf-8")
    return path


def _timed(commands: dict[str, Sequence[str]], folder: Path, rounds: int) -> dict[str, Sample]:
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, argv in commands.items():
            started = time.monotonic()
            run(argv, cwd=folder).check(name)
            taken[name].append(time.monotonic() - started)
    return {name: Sample(values=tuple(values)) for name, values in taken.items()}


def _peak(argv: Sequence[str]) -> float:
    """Megabytes: the sum of the peaks of the command and all its processes, which need not coincide.

    The kernel keeps the peak of each process, so that sampling misses little. NaN without /proc.
    """
    peaks: dict[int, float] = {}
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peaks |= {pid: peak for pid in _tree(process.pid) if (peak := _peak_so_far(pid))}
            time.sleep(_TICK)
    return sum(peaks.values()) if peaks else float("nan")


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


def _targets(times: dict[str, Sample], memory: float) -> Iterator[str]:
    for what, taken, target, unit in (
        ("builder plan", times["builder plan"].median, SECONDS_TO_PLAN, "s"),
        ("builder plan", memory, MEGABYTES_TO_PLAN, "MB"),
        ("builder --help", times["builder --help"].median, SECONDS_TO_HELP, "s"),
    ):
        yield f"  target: {what} under {target:g} {unit}: {taken:.3g} {unit}, {judged(taken < target)}"
