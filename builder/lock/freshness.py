"""Whether a uv.lock is older than the pyproject.toml that it was made from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from builder.errors import LockError, listed
from builder.lock.model import Lock
from builder.lock.script import script_of
from builder.lock.text import read_file, read_toml, table_of
from builder.lock.uv import run_uv

# Requirements by scope, such as "extra tls", and name: all specifiers together, or None if the lock records none.
_Required = Mapping[tuple[str, str], SpecifierSet | None]
_EXTRA = re.compile(r"extra == '(?P<name>[^']*)'")
# With another source than an index, uv records no specifier.
_SOURCES = frozenset({"git", "url", "path", "directory", "editable", "virtual"})
_STALE = re.compile("needs to be updated|No solution found when resolving dependencies")


def outdated_reason(lock: Lock) -> str | None:
    """Why the lock is outdated, with the first differences; None if it is not, or if that cannot be told offline."""
    if lock.kind not in {"uv.lock", "script"}:
        return None
    script = ["--script", script_of(lock.path).name] if lock.kind == "script" else []
    checked = run_uv(["lock", "--check", *script], lock.project)
    if checked.returncode == 0:
        return None
    differences = list(_differences(lock)) if lock.kind == "uv.lock" else []
    if not differences and not _STALE.search(checked.stderr):
        return None
    source = script_of(lock.path) if lock.kind == "script" else lock.project / "pyproject.toml"
    details = f": {listed(differences, most=3)}" if differences else ""
    return f"{lock.path} is older than {source}{details}; run `uv lock`"


def check_locked(lock: Lock) -> None:
    """Raise LockError if the lock is outdated."""
    reason = outdated_reason(lock)
    if reason:
        what, _, instead = reason.rpartition("; ")
        raise LockError(what, hint=f"{instead}, or omit --locked")


def _differences(lock: Lock) -> Iterator[str]:
    """What differs between the pyproject.toml of each member and what the lock says was in it, one text each."""
    for package in read_toml(lock.path, read_file(lock.path)).get("package", []):
        source = package.get("source", {})
        folder = source.get("editable") or source.get("virtual") or source.get("directory")
        pyproject = lock.project / str(folder) / "pyproject.toml"
        if folder and "metadata" in package and pyproject.is_file():
            yield from _member_differences(pyproject, _locked(package["metadata"]))


def _member_differences(pyproject: Path, locked: _Required) -> Iterator[str]:
    table = table_of(pyproject)
    try:
        declared = dict(_declared(table))
    except (InvalidRequirement, TypeError, AttributeError, KeyError):
        return  # uv says what is wrong with the file
    dynamic = table.get("project", {}).get("dynamic", [])
    for scope, name in sorted(declared.keys() | locked.keys()):
        if ("dependencies" in dynamic and not scope) or ("optional-dependencies" in dynamic and "extra" in scope):
            continue
        where = f" ({scope})" if scope else ""
        if (scope, name) not in locked:
            yield f"{name}{where} is not in the lock"
        elif (scope, name) not in declared:
            yield f"{name}{where} is no longer required"
        else:
            now, then = declared[scope, name], locked[scope, name]
            if now is not None and then is not None and now != then:
                yield f"{name}{where} is {now or 'any version'}, in the lock {then or 'any version'}"


def _declared(table: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], SpecifierSet | None]]:
    project = table.get("project", {})
    yield from _joined("", project.get("dependencies", []))
    for extra, requirements in project.get("optional-dependencies", {}).items():
        yield from _joined(f"extra {canonicalize_name(extra)}", requirements)
    groups = table.get("dependency-groups", {})
    for group in groups:
        yield from _joined(f"group {canonicalize_name(group)}", _flattened(group, groups, ()))
    legacy = table.get("tool", {}).get("uv", {}).get("dev-dependencies", [])
    if legacy and "dev" not in groups:
        yield from _joined("group dev", legacy)


def _flattened(group: str, groups: Mapping[str, Any], within: tuple[str, ...]) -> Iterator[str]:
    """The requirements of a group and of those that it includes (PEP 735)."""
    names = {canonicalize_name(name): name for name in groups}
    for item in groups[names[canonicalize_name(group)]]:
        if isinstance(item, str):
            yield item
        elif item["include-group"] not in within:
            yield from _flattened(item["include-group"], groups, (*within, group))


def _joined(scope: str, requirements: Iterable[str]) -> Iterator[tuple[tuple[str, str], SpecifierSet | None]]:
    joined: dict[str, SpecifierSet] = {}
    for text in requirements:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        joined[name] = joined.get(name, SpecifierSet()) & requirement.specifier
    yield from (((scope, name), specifier) for name, specifier in joined.items())


def _locked(metadata: Mapping[str, Any]) -> _Required:
    required: dict[tuple[str, str], SpecifierSet | None] = {}
    for entry in metadata.get("requires-dist", []):
        extra = _EXTRA.search(entry.get("marker", ""))
        _add(required, f"extra {extra['name']}" if extra else "", entry)
    for group, entries in metadata.get("requires-dev", {}).items():
        for entry in entries:
            _add(required, f"group {group}", entry)
    return required


def _add(required: dict[tuple[str, str], SpecifierSet | None], scope: str, entry: Mapping[str, Any]) -> None:
    key = scope, entry["name"]
    before = required.get(key, SpecifierSet())
    if before is None or entry.keys() & _SOURCES:
        required[key] = None
    else:
        required[key] = before & SpecifierSet(entry.get("specifier", ""))
