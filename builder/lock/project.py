"""The project files next to a lock: `pyproject.toml`, `uv.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from builder.errors import LockError
from builder.lock.model import Lock
from builder.lock.script import script_metadata, script_of
from builder.lock.text import entry, table_of


def uv_settings(lock: Lock) -> tuple[Path, Mapping[str, Any]]:
    """See `uv_settings_of`."""
    return uv_settings_of(lock.path, is_script=lock.kind == "script")


def uv_settings_of(lock: Path, *, is_script: bool) -> tuple[Path, Mapping[str, Any]]:
    """The uv settings of a lock's project, and their file: like uv, read `uv.toml` if it exists, else `[tool.uv]`.

    A script has its own, in its metadata.
    """
    if is_script:
        script = script_of(lock)
        in_script: Mapping[str, Any] = entry(script, script_metadata(script), "tool", dict, {})
        return script, entry(script, in_script, "uv", dict, {})
    own = lock.parent / "uv.toml"
    if own.is_file():
        return own, table_of(own)
    pyproject = lock.parent / "pyproject.toml"
    tool: Mapping[str, Any] = entry(pyproject, table_of(pyproject), "tool", dict, {})
    return pyproject, entry(pyproject, tool, "uv", dict, {})


def has_overrides(lock: Lock) -> bool:
    """Whether the project overrides requirements of its dependencies, so that `uv pip check` may report conflicts."""
    _, settings = uv_settings(lock)
    return bool(settings.get("override-dependencies") or settings.get("dependency-metadata"))


def project_name(lock: Lock) -> str:
    """The project's name in pyproject.toml, or else the name of its folder; for a script, its own."""
    if lock.kind == "script":
        return script_of(lock.path).stem
    return declared_name(lock.project) or lock.project.resolve().name


def declared_name(folder: Path) -> str:
    """The name of the project in the folder's pyproject.toml; empty if there is none."""
    pyproject = folder / "pyproject.toml"
    project: Mapping[str, Any] = entry(pyproject, table_of(pyproject), "project", dict, {})
    return entry(pyproject, project, "name", str, "")


def requires_python(lock: Lock) -> SpecifierSet:
    """The `requires-python` of the pyproject.toml next to the lock; a uv.lock already includes it."""
    pyproject = lock.project / "pyproject.toml"
    project: Mapping[str, Any] = entry(pyproject, table_of(pyproject), "project", dict, {})
    text = entry(pyproject, project, "requires-python", str, "")
    try:
        return SpecifierSet(text)
    except InvalidSpecifier as error:
        raise LockError(f"{pyproject}: requires-python {text!r} is not a version specifier") from error
