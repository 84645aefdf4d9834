"""`plan`: the time and memory of `builder plan` and `builder --help`, with all their processes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import tomli
import tomli_w

from bench.figures import Sample, judged, say, table
from bench.memory import weighed
from bench.subject import EXAMPLE, ROOT, locked_example
from builder.process import run

LOCKS: Final = ROOT.parent / "shared" / "locks" / "uv"
SECONDS_TO_PLAN: Final = 3.0
MEGABYTES_TO_PLAN: Final = 300.0
SECONDS_TO_HELP: Final = 0.3

_BUILDER: Final = str(Path(sys.executable).with_name("builder"))  # the console script, as users start it
_FLOOR: Final = (sys.executable, "-c", "pass")
_HELP: Final = (_BUILDER, "--help")


def main(scratch: Path, rounds: int) -> str:
    """Time the commands round by round, measure their memory, and return the report."""
    lock = largest_lock(scratch)
    plan = (_BUILDER, "plan", "-f", str(_matrix(scratch)), "--lock", str(lock))
    run(plan, cwd=scratch).check("builder plan")
    say(f"timing builder plan and builder --help, {rounds} rounds")
    commands: dict[str, Sequence[str]] = {"python -c pass": _FLOOR, "builder --help": _HELP, "builder plan": plan}
    times = _timed(commands, scratch, rounds)
    memory = {name: weighed(argv, cwd=scratch).total for name, argv in commands.items()}
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


def _targets(times: dict[str, Sample], memory: float) -> Iterator[str]:
    for what, taken, target, unit in (
        ("builder plan", times["builder plan"].median, SECONDS_TO_PLAN, "s"),
        ("builder plan", memory, MEGABYTES_TO_PLAN, "MB"),
        ("builder --help", times["builder --help"].median, SECONDS_TO_HELP, "s"),
    ):
        yield f"  target: {what} under {target:g} {unit}: {taken:.3g} {unit}, {judged(taken < target)}"
