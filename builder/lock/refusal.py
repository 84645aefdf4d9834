"""What to do when uv refuses a lock, and the names that it could have been given."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import tomli
from packaging.utils import canonicalize_name

from builder.errors import listed
from builder.lock.text import entry, table_of

# A project in a lock whose sources are in the checkout: its name and folder.
_MEMBER: Final = re.compile(
    r'^name = "([^"]+)"\n(?:version = .*\n)?source = \{ (?:editable|virtual) = "([^"]+)" \}', re.MULTILINE
)
# By uv's words; the first that is found counts.
_HINTS: Final[Mapping[str, str]] = {
    "unsupported schema version": "the lock was written by a newer uv than the one installed with builder; "
    "upgrade builder",
    "Required uv version": "name a version that required-version admits as `uv` in the matrix; it reads the lock and "
    "is in the images",
    "Failed to parse `uv.lock`": "restore it from version control, or remove it and run `uv lock`",
}

_Names = tuple[Sequence[str], Sequence[str]]  # the groups and the extras of a project


def refusal_hint(path: Path, reason: str, text: str) -> str:
    """What to do about uv's reason for refusing the lock with this text; the reason is on one line."""
    if "not defined" in reason or re.search("incompatible with the (declared )?conflicts", reason):
        return _names_hint(path, reason, text)
    if "does not have a member" in reason or "find root package" in reason:
        members = listed(sorted(workspace_members(text))) or "none"
        return f"fix install.packages in the matrix, or --package; members: {members}"
    return next((hint for words, hint in _HINTS.items() if words in reason), "run `uv lock` in its folder")


def workspace_members(text: str) -> tuple[str, ...]:
    """The names of the members in the text of a uv.lock; empty if it is of a single project, or invalid."""
    head = text.partition("[[package]]")[0]  # the rest takes long to parse
    try:
        members = tomli.loads(head).get("manifest", {}).get("members", [])
    except tomli.TOMLDecodeError:
        return ()
    return tuple(name for name in members if isinstance(name, str))


def _names_hint(path: Path, reason: str, text: str) -> str:
    defined = _defined_names(path, text)
    named = re.search("`(?P<name>[^`]+)` is not defined", reason)
    if named and any(named["name"] in names for names in defined[""]):
        return "pyproject.toml defines it, but the lock does not know it: run `uv lock`"
    excluded = "those that exclude each other need profiles of their own; " if "incompatible" in reason else ""
    return f"fix groups and extras of install, or of the profile, in the matrix; {excluded}{_listed_names(defined)}"


def _defined_names(path: Path, text: str) -> dict[str, _Names]:
    """What the lock's own project defines, and each other member of the workspace by its name."""
    folders = {"": path.parent} | {
        name: path.parent / folder for name, folder in _MEMBER.findall(text) if folder != "."
    }
    return {name: _names_in(folder / "pyproject.toml") for name, folder in folders.items()}


def _names_in(pyproject: Path) -> _Names:
    table = table_of(pyproject)
    project: Mapping[str, Any] = entry(pyproject, table, "project", dict, {})
    groups = entry(pyproject, table, "dependency-groups", dict, {})
    extras = entry(pyproject, project, "optional-dependencies", dict, {})
    return sorted(map(canonicalize_name, groups)), sorted(map(canonicalize_name, extras))


def _listed_names(defined: Mapping[str, _Names]) -> str:
    texts = []
    for member, (groups, extras) in defined.items():
        if not member or groups or extras:
            of_member = f" of {member}" if member else ""
            texts.append(
                f"groups{of_member}: {listed(groups) or 'none'}; extras{of_member}: {listed(extras) or 'none'}"
            )
    return "; ".join(texts)
