"""Commands as users start them: docker, and builder's console script; timed, and ended gently when interrupted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from builder.errors import BuilderError

BUILDER: Final = str(Path(sys.executable).with_name("builder"))

_STOP: Final = 60.0  # seconds that an interrupted command gets to remove what it made
_END: Final = 3000  # characters of a failed command's output


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A command that succeeded: its duration in seconds, and what it printed to stdout."""

    seconds: float
    stdout: str

    @property
    def cells(self) -> list[dict[str, Any]]:
        """The cells in the output of `builder build --json`."""
        cells: list[dict[str, Any]] = json.loads(self.stdout)["cells"]
        return cells


def timed(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None) -> Timed:
    """Run a command to its end, with these variables besides the present ones; raise BuilderError if it fails."""
    os.sync()  # do not wait for the writes of what ran before
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        started = time.monotonic()
        process = subprocess.Popen(
            argv, cwd=cwd, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, stdout=out, stderr=errors
        )
        try:
            status = process.wait()
        finally:
            _end(process)
        seconds = time.monotonic() - started
        texts = []
        for file in (out, errors):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    if status:
        raise BuilderError(f"{' '.join(argv[:3])} ended with {status}: {''.join(texts)[-_END:]}")
    return Timed(seconds=seconds, stdout=texts[0])


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that an interruption left; builder then stops its own and removes their containers."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
