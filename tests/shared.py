"""What the workers of a test run share: made once, by the first that needs it, and removed when the run ends."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from filelock import FileLock

Json = TypeVar("Json")


@dataclass(frozen=True)
class Shared:
    """A folder that every worker of the run has."""

    top: Path

    def once(self, name: str, make: Callable[[Path], Json]) -> Json:
        """Return what `make` made of its folder, a JSON value: it is called in one worker, and the others wait."""
        folder, result = self.top / name, self.top / f"{name}.json"
        with FileLock(f"{folder}.lock"):
            if folder.exists() and not result.exists():
                pytest.fail(f"{name} could not be made: see the first test that needed it")
            if not result.exists():
                folder.mkdir()
                result.write_text(json.dumps(make(folder)), encoding="utf-8")
        made: Json = json.loads(result.read_text(encoding="utf-8"))
        return made

    def at_the_end(self, *argv: str) -> None:
        """Have a command run when all workers are done, whatever becomes of it; the last one added runs first."""
        with FileLock(self.top / "end.lock"), (self.top / "end").open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(argv)}\n")

    def end(self) -> None:
        """Run the commands."""
        path = self.top / "end"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for line in reversed(lines):
            subprocess.run(json.loads(line), check=False, capture_output=True)
