"""Runs builder's command line in the test's own process."""

from __future__ import annotations

import contextlib
import io
import signal
from dataclasses import dataclass
from unittest import mock

from builder.cli import build, main

assert build  # imported here: urllib3, below it, binds a socket at first, to see whether there is IPv6


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A command that ended."""

    exit_code: int
    stdout: str
    stderr: str


def builder(*arguments: str) -> Ended:
    """Run `builder` with these arguments, and capture its output and exit code."""
    stdout, stderr = io.StringIO(), io.StringIO()
    before = signal.getsignal(signal.SIGTERM)
    try:
        with (
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
            mock.patch("sys.argv", ["builder", *arguments]),
        ):
            main()
    except SystemExit as end:
        exit_code = end.code if isinstance(end.code, int) else -1
    finally:
        signal.signal(signal.SIGTERM, before)
    return Ended(exit_code=exit_code, stdout=stdout.getvalue(), stderr=stderr.getvalue())
