"""How long the cells of a repository took when they were made last, to tell how long it may take now."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from builder.parse import MalformedError, parse_value, read_text
from builder.whole_file import write_whole

_MOST: Final = 500  # cells that are remembered


def read_pace(path: Path) -> dict[str, float]:
    """The seconds that each cell took, by repository and cell; empty if nobody has noted any."""
    try:
        return parse_value(dict[str, float], read_text(path))
    except (OSError, UnicodeDecodeError, MalformedError):
        return {}


def keep_pace(path: Path, seconds: Mapping[str, float]) -> None:
    """Note how long cells took; the oldest notes give way. A folder that cannot be written is no error."""
    if not seconds:
        return
    before = {name: value for name, value in read_pace(path).items() if name not in seconds}
    kept = dict([*before.items(), *seconds.items()][-_MOST:])
    with contextlib.suppress(OSError):
        write_whole(path, json.dumps({name: round(value, 1) for name, value in kept.items()}))
