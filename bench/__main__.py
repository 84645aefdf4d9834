"""`python -m bench [part] …`: run all measurements, or only the named ones, which `--help` lists."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from bench import change, cli, locks, makers, pipeline, plan, push, size, wait
from bench.figures import load, machine
from bench.projects import PROJECTS
from builder.errors import BuilderError, InterruptedRun

_PARTS: Final = ("size", "wait", "plan", "locks", "push", "pipeline", "change", "makers", "cli")


def main() -> int:
    """Measure and print; return the exit code: 0 whatever the figures, or that of an error."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    arguments = _arguments()
    try:
        with tempfile.TemporaryDirectory(prefix="builder-bench-") as scratch:
            _measure(arguments, Path(scratch))
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
    parser.add_argument("--rounds", type=int, default=5, help="how often to measure each time  [default: 5]")
    parser.add_argument(
        "--row", action="append", choices=change.ROWS, help="a row of change; repeatable  [default: all]"
    )
    parser.add_argument("--project", action="append", choices=PROJECTS, help="a project of change  [default: both]")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(_PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; parts: {', '.join(_PARTS)}")
    if arguments.rounds < 1:
        parser.error("--rounds must be 1 or more")
    return arguments


def _measure(arguments: argparse.Namespace, scratch: Path) -> None:
    print(f"machine: {machine()}", flush=True)
    parts: dict[str, Callable[[], Iterable[str]]] = {
        "size": lambda: [size.main(scratch)],
        "wait": lambda: [wait.main(scratch, arguments.rounds)],
        "plan": lambda: [plan.main(scratch, arguments.rounds)],
        "locks": lambda: [locks.main(scratch, arguments.rounds)],
        "push": lambda: [push.main(scratch, arguments.rounds)],
        "pipeline": lambda: [pipeline.main(scratch, arguments.rounds)],
        "change": lambda: change.main(scratch, arguments.rounds, arguments.row or (), arguments.project or ()),
        "makers": lambda: [makers.main(scratch, arguments.rounds)],
        "cli": lambda: [cli.main(arguments.rounds)],
    }
    for part in _PARTS:
        if part in (arguments.parts or _PARTS):
            before = load()
            for report in parts[part]():
                print(f"\n{report}\n  load: {before} before, {load()} after", flush=True)
                before = load()


if __name__ == "__main__":
    sys.exit(main())
