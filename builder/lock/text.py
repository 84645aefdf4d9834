"""Text and TOML files of a project."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from builder import parse
from builder.errors import LockError

_Value = TypeVar("_Value")
_TOML_TYPES: Final[Mapping[type, str]] = {
    dict: "a table", list: "an array", str: "a string", bool: "true or false",
}  # fmt: skip


def read_file(path: Path) -> str:
    """Read a text file; raise LockError if it cannot be read."""
    try:
        return parse.read_text(path)
    except FileNotFoundError as error:
        raise LockError(f"no lock file at {path}", hint="name it with --lock; `uv lock` writes one") from error
    except UnicodeDecodeError as error:
        raise LockError(f"{path} is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise LockError(f"cannot read {path}: {error.strerror}") from error


def read_toml(path: Path, text: str) -> dict[str, Any]:
    """Parse the text of a TOML file; raise LockError if it is not TOML."""
    try:
        return parse.load_toml(text)
    except parse.MalformedError as error:
        raise LockError(f"{path} is not TOML: {error}") from error


def table_of(path: Path) -> Mapping[str, Any]:
    """The content of a TOML file; empty if the file does not exist."""
    return read_toml(path, read_file(path)) if path.is_file() else {}


def entry(path: Path, table: Mapping[str, Any], key: str, kind: type[_Value], default: Any) -> _Value:
    """The value of a key in a table of the file, or the default; raise LockError if it has another type."""
    value = table.get(key, default)
    if not isinstance(value, kind):
        raise LockError(f"{path}: {key} must be {_TOML_TYPES[kind]}, not {value!r}")
    return value


def entries(path: Path, table: Mapping[str, Any], key: str, kind: type[_Value]) -> tuple[_Value, ...]:
    """The items of an array in a table of the file; raise LockError if one has another type."""
    name = f"each item of {key}"
    return tuple(entry(path, {name: item}, name, kind, None) for item in entry(path, table, key, list, []))
