"""Scripts with inline metadata (PEP 723), whose locks uv writes next to them: `tool.py` and `tool.py.lock`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from builder.errors import LockError
from builder.lock.text import read_file, read_toml

# The standard's own expression, for the block of type `script`.
_BLOCK = re.compile(r"(?m)^# /// script$\s(?P<content>(^#(| .*)$\s)+)^# ///$")


def script_of(lock: Path) -> Path:
    """The script that the lock is for."""
    return lock.with_suffix("")


def script_metadata(script: Path) -> Mapping[str, Any]:
    """The script's inline metadata; raise LockError if it has none."""
    match = _BLOCK.search(read_file(script))
    if match is None:
        raise LockError(f"{script} has no inline metadata", hint="uv reads it from a block `# /// script` (PEP 723)")
    lines = match["content"].splitlines()
    return read_toml(script, "\n".join(line[2:] for line in lines))
