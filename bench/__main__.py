"""`python -m bench [size] [wait] [plan] [push] [pipeline]`: measure all parts, or those that are named."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench import pipeline, plan, push, size, wait
from bench.figures import load, machine
from builder.errors import BuilderError, InterruptedRun

_PARTS: Final = ("size", "wait", "plan", "push", "pipeline")


def main() -> int:
    """Measure and print; return the exit code: 0 whatever the figures, that of the error where there are none."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    said = _arguments()
    try:
        with tempfile.TemporaryDirectory(prefix="builder-bench-") as scratch:
            _measure(said, Path(scratch))
    except KeyboardInterrupt:
        return InterruptedRun.exit_code
    except BuilderError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"what to measure: {', '.join(_PARTS)}  [default: all]"
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each time is taken  [default: 5]")
    said = parser.parse_args()
    if unknown := set(said.parts) - set(_PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(_PARTS)}")
    if said.rounds < 1:
        parser.error("--rounds must be 1 or more")
    return said


def _measure(said: argparse.Namespace, scratch: Path) -> None:
    print(f"machine: {machine()}", flush=True)
    parts: dict[str, Callable[[], str]] = {
        "size": lambda: size.main(scratch),
        "wait": lambda: wait.main(scratch, said.rounds),
        "plan": lambda: plan.main(scratch, said.rounds),
        "push": lambda: push.main(scratch, said.rounds),
        "pipeline": lambda: pipeline.main(scratch, said.rounds),
    }
    for part in _PARTS:
        if part in (said.parts or _PARTS):
            before = load()
            print(f"\n{parts[part]()}\n  load of the machine: {before} before, {load()} after", flush=True)


if __name__ == "__main__":
    sys.exit(main())
