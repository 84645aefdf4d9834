"""What scripts install of a project's groups and extras."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tomli
from packaging.utils import canonicalize_name

from builder.gitlab.adopt.program import read_inside

_GROUP: Final = re.compile(r"--(?P<kind>group|only-group|extra)[= ](?P<name>[\w.-]+)")
_EVERY: Final = re.compile(r"--all-(?P<kind>group|extra)s\b")
_NAMED_TOOL: Final = r"[\"']?(?P<{}>[A-Za-z][\w.-]*(?:(?:@|==)[\w.]+)?)[\"']?(?=[\s;&|)]|$)"
_TOOL: Final = re.compile(
    r"(?:\buvx|\buv tool (?:run|install))\s+(?:(?:-q|--quiet|--offline|--isolated|--no-progress|--refresh)\s+)*(?:"
    + _NAMED_TOOL.format("name")
    + "|--from[= ]"
    + _NAMED_TOOL.format("source")
    + ")"
)
_IN_BRACKETS: Final = re.compile(r"(?:^|[\s\"'])\.\[(?P<names>[\w.,-]+)\]")


@dataclass(frozen=True, kw_only=True)
class Installed:
    """A list for the matrix, "all", or nothing; why; and the names that the project has besides."""

    names: tuple[str, ...] | str = ()
    why: str = ""
    others: tuple[str, ...] = ()


def installed_groups(folder: Path, scripts: Sequence[str]) -> Installed:
    """The dependency groups of a project, besides its default ones, that scripts install."""
    table = _project_table(folder)
    uv = table.get("tool", {}).get("uv", {})
    by_default = uv.get("default-groups", ["dev"]) if isinstance(uv, dict) else ["dev"]
    groups = table.get("dependency-groups", {})
    declared = [name for name in groups if by_default != "all" and name not in by_default]
    return _choice(declared, scripts, {"group", "only-group"})


def installed_extras(folder: Path, scripts: Sequence[str]) -> Installed:
    """The extras of a project that scripts install."""
    project = _project_table(folder).get("project", {})
    declared = list(project.get("optional-dependencies", {})) if isinstance(project, dict) else []
    return _choice(declared, scripts, {"extra"})


def _choice(declared: Sequence[str], scripts: Sequence[str], kinds: Set[str]) -> Installed:
    """Which of the declared names scripts install."""
    if declared and any(match["kind"] in kinds for script in scripts for match in _EVERY.finditer(script)):
        return Installed(names="all", why="jobs install all of them")
    used = {match["name"] for script in scripts for match in _GROUP.finditer(script) if match["kind"] in kinds}
    if "extra" in kinds:
        used |= {name for script in scripts for match in _IN_BRACKETS.finditer(script) for name in match[1].split(",")}
    names = tuple(name for name in declared if name in used)
    why = "jobs install them" if names else ""
    return Installed(names=names, why=why, others=tuple(name for name in declared if name not in used))


def _project_table(folder: Path) -> dict[str, Any]:
    try:
        return tomli.loads(read_inside(folder / "pyproject.toml", folder))
    except tomli.TOMLDecodeError:
        return {}


def tools_run(scripts: Sequence[str]) -> tuple[str, ...]:
    """The tools that scripts run by `uvx` or `uv tool`, as requirements for the matrix, such as ruff==0.14.5."""
    found: dict[str, str] = {}
    for match in (match for script in scripts for match in _TOOL.finditer(script)):
        name, _, version = (match["source"] or match["name"]).replace("==", "@").partition("@")
        key = str(canonicalize_name(name))
        exact = f"{name}=={version}" if version[:1].isdigit() else name
        # Jobs that disagree about the version get the newest, and whatever else they name is fetched.
        found[key] = exact if found.get(key, exact) == exact else name
    return tuple(found.values())
