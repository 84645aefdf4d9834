"""Text and TOML files of a project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomli

from builder.errors import LockError


def read_text(path: Path) -> str:
    """Read a text file; raise LockError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise LockError(f"no lock file at {path}", hint="name it with --lock; `uv lock` writes one") from error
    except UnicodeDecodeError as error:
        raise LockError(f"{path} is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise LockError(f"cannot read {path}: {error.strerror}") from error


def read_toml(path: Path, text: str) -> dict[str, Any]:
    """Parse the text of a TOML file; raise LockError if it is not TOML."""
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise LockError(f"{path} is not TOML: {error}") from error
