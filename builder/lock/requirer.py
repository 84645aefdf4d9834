"""Who requires a package of a lock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.lock.model import Lock
from builder.lock.text import read_file, read_toml


def requirers(lock: Lock) -> Mapping[str, tuple[str, ...]]:
    """The names of the packages that require each package, as far as the lock says; uv's own locks do."""
    found: dict[str, set[str]] = {}
    for name, dependencies in _edges(lock):
        for dependency in dependencies:
            found.setdefault(dependency, set()).add(name)
    return {name: tuple(sorted(by)) for name, by in found.items()}


def _edges(lock: Lock) -> list[tuple[str, list[str]]]:
    if lock.kind in {"uv.lock", "script"}:
        packages = read_toml(lock.path, read_file(lock.path)).get("package", [])
        return [(package["name"], _dependencies(package)) for package in packages]
    return [
        (package.name, [str(dependency.get("name")) for dependency in package.dependencies or ()])
        for package in lock.pylock.packages
    ]


def _dependencies(package: Mapping[str, Any]) -> list[str]:
    """The names of a package's dependencies in a uv.lock, those of its extras and groups too."""
    tables = [*package.get("optional-dependencies", {}).values(), *package.get("dev-dependencies", {}).values()]
    return [each["name"] for table in [package.get("dependencies", []), *tables] for each in table]
