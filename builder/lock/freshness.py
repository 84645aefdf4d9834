"""Whether a uv.lock is older than the pyproject.toml that it was made from."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from builder.errors import LockError, listed
from builder.lock.model import Lock
from builder.lock.project import uv_settings
from builder.lock.script import script_of
from builder.lock.text import read_file, read_toml, table_of
from builder.lock.uv import run_uv
from builder.redaction import redact

# Requirements by scope, such as "extra tls", and name.
_Required = Mapping[tuple[str, str], "_Wanted"]
_EXTRA = re.compile(r"extra == '(?P<name>[^']*)'")
# What a requirement comes from if not from an index, by its key in the lock and in [tool.uv.sources].
_SOURCES: Final[Mapping[str, str]] = {
    "git": "git", "url": "a URL", "path": "a path", "directory": "a path", "editable": "a path", "virtual": "a path",
    "workspace": "a path",
}  # fmt: skip
_STALE = re.compile("needs to be updated|No solution found when resolving dependencies")
# Settings of uv, and where the lock has what they were.
_MANIFEST: Final[Mapping[str, str]] = {
    "constraint-dependencies": "constraints", "override-dependencies": "overrides",
    "build-constraint-dependencies": "build-constraints",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """A requirement, or several for the same project: the version, the extras, and where it comes from.

    `sources` is empty if that is an index; with another source, uv records no specifier.
    """

    specifier: SpecifierSet = field(default_factory=SpecifierSet)
    extras: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    has_marker: bool = False

    def __and__(self, other: _Wanted) -> _Wanted:
        return _Wanted(
            specifier=self.specifier & other.specifier,
            extras=self.extras | other.extras,
            sources=self.sources | other.sources,
            has_marker=self.has_marker or other.has_marker,
        )

    def difference(self, then: _Wanted) -> str | None:
        """How it differs from what the lock says; None if it does not."""
        if self.sources != then.sources:
            now, before = (_joined_words(each.sources) or "an index" for each in (self, then))
            return f"comes from {now}, in the lock from {before}"
        if not self.sources and self.specifier != then.specifier:
            return f"is {self.specifier or 'any version'}, in the lock {then.specifier or 'any version'}"
        if self.extras != then.extras:
            now, before = (_joined_words(each.extras) or "no" for each in (self, then))
            return f"has extras {now}, in the lock {before}"
        return None


def _joined_words(words: Iterable[str]) -> str:
    return " and ".join(sorted(words))


def outdated_reason(lock: Lock) -> str | None:
    """Why the lock is outdated, with the first differences; None if it is not, or if that cannot be told offline."""
    return _checked(lock)[0]


def check_locked(lock: Lock) -> None:
    """Raise LockError if the lock is outdated, or if nothing says that it is not."""
    reason, unknown = _checked(lock)
    if unknown and not reason:
        # uv may need what is not in its cache, such as a git repository's metadata.
        reason, unknown = _checked(lock, offline=False)
    if reason:
        what, _, instead = reason.rpartition("; ")
        raise LockError(what, hint=f"{instead}, or omit --locked")
    if unknown:
        raise LockError(f"uv cannot tell whether {lock.path} is current: {unknown}", hint="mend that, or omit --locked")


def _checked(lock: Lock, *, offline: bool = True) -> tuple[str | None, str]:
    """Why the lock is outdated; and, if uv cannot tell whether it is, why not."""
    if lock.kind not in {"uv.lock", "script"}:
        return None, ""
    script = ["--script", script_of(lock.path).name] if lock.kind == "script" else []
    checked = run_uv(["lock", "--check", *script], lock.project, offline=offline)
    if checked.returncode == 0:
        return None, ""
    is_stale = _STALE.search(checked.stderr) is not None
    table = read_toml(lock.path, read_file(lock.path)) if lock.kind == "uv.lock" else {}
    differences = list(_differences(lock, table))
    if not differences and not is_stale:
        if lock.uv:  # builder's own uv may not read it
            return None, ""
        return None, redact(checked.stderr).strip().rpartition("error: ")[2]
    differences = differences or list(_other_differences(lock, table))
    source = script_of(lock.path) if lock.kind == "script" else lock.project / "pyproject.toml"
    details = f": {listed(differences, most=3)}" if differences else ""
    return f"{lock.path} is older than {source}{details}; run `uv lock`", ""


def _differences(lock: Lock, table: Mapping[str, Any]) -> Iterator[str]:
    """What differs between the pyproject.toml of each member and what the lock says was in it, one text each."""
    shared = _sources_in(table_of(lock.project / "pyproject.toml"))
    ignored = uv_settings(lock)[1].get("no-sources") is True
    for pyproject, metadata in _members(lock, table):
        member = table_of(pyproject)
        own = {} if ignored else _sources_in(member)
        yield from _member_differences(member, own, shared.keys() - own.keys(), _locked(metadata))


def _members(lock: Lock, table: Mapping[str, Any]) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    for package in table.get("package", []):
        source = package.get("source", {})
        folder = source.get("editable") or source.get("virtual") or source.get("directory")
        pyproject = lock.project / str(folder) / "pyproject.toml"
        if folder and "metadata" in package and os.path.isfile(pyproject):  # noqa: PTH113 - no error if it is too long
            yield pyproject, package["metadata"]


def _other_differences(lock: Lock, table: Mapping[str, Any]) -> Iterator[str]:
    """What may differ if uv says that something does: what it records in other words than it was written."""
    members = list(_members(lock, table))
    pyproject = lock.project / "pyproject.toml"
    requires = str(table_of(pyproject).get("project", {}).get("requires-python", ""))
    with contextlib.suppress(InvalidSpecifier):
        if len(members) == 1 and requires and SpecifierSet(requires) != SpecifierSet(table.get("requires-python", "")):
            yield f"requires-python is {requires}, in the lock {table.get('requires-python')}"
    settings = uv_settings(lock)[1]
    for key, noun in _MANIFEST.items():
        now = {_named(text) for text in settings.get(key, []) if isinstance(text, str)}
        if now != {each.get("name") for each in table.get("manifest", {}).get(noun, []) if isinstance(each, Mapping)}:
            yield f"{key} differs"
    for path, metadata in members:
        with contextlib.suppress(InvalidRequirement, TypeError, AttributeError, KeyError):
            locked = _locked(metadata)
            for (scope, name), wanted in sorted(_declared(table_of(path), {}).items()):
                if (scope, name) in locked and wanted.has_marker != locked[scope, name].has_marker:
                    yield f"{name}{_where(scope)} has {'a' if wanted.has_marker else 'no'} marker, unlike in the lock"


def _named(requirement: str) -> str:
    return canonicalize_name(re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0])


def _where(scope: str) -> str:
    return f" ({scope})" if scope else ""


def _member_differences(
    table: Mapping[str, Any], sources: Mapping[str, Any], inherited: AbstractSet[str], locked: _Required
) -> Iterator[str]:
    """The differences of a member; uv's versions differ in whether locks have the sources `inherited` from the root."""
    try:
        declared = _declared(table, sources)
    except (InvalidRequirement, TypeError, AttributeError, KeyError):
        return  # uv says what is wrong with the file
    dynamic = table.get("project", {}).get("dynamic", [])
    for scope, name in sorted(declared.keys() | locked.keys()):
        if ("dependencies" in dynamic and not scope) or ("optional-dependencies" in dynamic and "extra" in scope):
            continue
        where = _where(scope)
        if (scope, name) not in locked:
            yield f"{name}{where} is not in the lock"
        elif (scope, name) not in declared:
            yield f"{name}{where} is no longer required"
        else:
            now, then = declared[scope, name], locked[scope, name]
            if name in inherited and not now.sources:
                now = replace(now, sources=then.sources)
            if difference := now.difference(then):
                yield f"{name}{where} {difference}"


def _sources_in(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """The sources of a project's requirements, by name: each one table, or several."""
    sources = table.get("tool", {}).get("uv", {}).get("sources", {})
    return {canonicalize_name(name): source for name, source in sources.items()} if isinstance(sources, dict) else {}


def _declared(table: Mapping[str, Any], sources: Mapping[str, Any]) -> dict[tuple[str, str], _Wanted]:
    project = table.get("project", {})
    found = dict(_joined("", project.get("dependencies", []), sources))
    for extra, requirements in project.get("optional-dependencies", {}).items():
        found |= _joined(f"extra {canonicalize_name(extra)}", requirements, sources)
    groups = table.get("dependency-groups", {})
    for group in groups:
        found |= _joined(f"group {canonicalize_name(group)}", _flattened(group, groups, ()), sources)
    legacy = table.get("tool", {}).get("uv", {}).get("dev-dependencies", [])
    if legacy and "dev" not in groups:
        found |= _joined("group dev", legacy, sources)
    return found


def _flattened(group: str, groups: Mapping[str, Any], within: tuple[str, ...]) -> Iterator[str]:
    """The requirements of a group and of those that it includes (PEP 735)."""
    names = {canonicalize_name(name): name for name in groups}
    for item in groups[names[canonicalize_name(group)]]:
        if isinstance(item, str):
            yield item
        elif item["include-group"] not in within:
            yield from _flattened(item["include-group"], groups, (*within, group))


def _joined(scope: str, requirements: Iterable[str], sources: Mapping[str, Any]) -> dict[tuple[str, str], _Wanted]:
    joined: dict[tuple[str, str], _Wanted] = {}
    for text in requirements:
        requirement = Requirement(text)
        key = scope, canonicalize_name(requirement.name)
        wanted = _Wanted(
            specifier=requirement.specifier,
            extras=frozenset(map(canonicalize_name, requirement.extras)),
            sources=_kinds(scope, requirement, sources.get(key[1])),
            has_marker=requirement.marker is not None,
        )
        joined[key] = joined[key] & wanted if key in joined else wanted
    return joined


def _kinds(scope: str, requirement: Requirement, declared: Any) -> frozenset[str]:
    """Where a requirement comes from, by its own URL or by [tool.uv.sources], which may be for one scope alone."""
    if requirement.url:
        kind = "git" if requirement.url.startswith("git+") else "path" if requirement.url.startswith("file:") else "url"
        return frozenset({_SOURCES[kind]})
    tables = declared if isinstance(declared, list) else [declared] if isinstance(declared, Mapping) else []
    found = set()
    for table in tables:
        only = [f"{noun} {canonicalize_name(str(table[noun]))}" for noun in ("extra", "group") if noun in table]
        if not only or scope in only:
            found |= {kind for key, kind in _SOURCES.items() if table.get(key)}
    return frozenset(found)


def _locked(metadata: Mapping[str, Any]) -> _Required:
    required: dict[tuple[str, str], _Wanted] = {}
    for entry in metadata.get("requires-dist", []):
        extra = _EXTRA.search(entry.get("marker", ""))
        _add(required, f"extra {extra['name']}" if extra else "", entry)
    for group, entries in metadata.get("requires-dev", {}).items():
        for entry in entries:
            _add(required, f"group {group}", entry)
    return required


def _add(required: dict[tuple[str, str], _Wanted], scope: str, entry: Mapping[str, Any]) -> None:
    key = scope, entry["name"]
    wanted = _Wanted(
        specifier=SpecifierSet(entry.get("specifier", "")),
        extras=frozenset(entry.get("extras", [])),
        sources=frozenset(kind for name, kind in _SOURCES.items() if name in entry),
        has_marker=bool(_EXTRA.sub("", entry.get("marker", ""))),
    )
    required[key] = required[key] & wanted if key in required else wanted
