"""Locks that uv writes, of projects (`uv.lock`) and of scripts (`tool.py.lock`), as uv itself converts them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

from packaging.utils import canonicalize_name

from builder.errors import LockError
from builder.lock.model import Lock, LockKind
from builder.lock.project import declared_name
from builder.lock.refusal import refusal_hint, workspace_members
from builder.lock.script import script_of
from builder.lock.table import parse_table
from builder.lock.text import read_toml
from builder.lock.uv import OtherUv, fetch_uv, run_uv, version_of, workspace_root
from builder.matrix.schema import Install
from builder.redaction import redact

# How uvs that are too old for builder refuse an option of `uv export`.
_TOO_OLD: Final = re.compile("unrecognized subcommand|unexpected argument|invalid value 'pylock.toml'")


def read_uv_lock(path: Path, text: str, install: Install, other: OtherUv) -> Lock:
    """Read the lock of a project or workspace; raise LockError, with uv's reason, if uv does not."""
    if not (path.parent / "pyproject.toml").is_file():
        raise LockError(
            f"no pyproject.toml next to {path}",
            hint="uv needs the pyproject.toml that the uv.lock was made from",
        )
    _check_is_read(path)
    flags = [
        *choice_flags("package", install.packages),
        *choice_flags("group", install.groups),
        *choice_flags("extra", install.extras),
        *(word for name in install.only_groups for word in ("--only-group", name)),
        *([] if install.default_groups or install.only_groups else ["--no-default-groups"]),
    ]
    lock = _exported(path, "uv.lock", text, flags, other)
    cached = tuple(
        replace(_exported(path, "uv.lock", text, more, other), uv_flags=tuple(more))
        for more in _flags_with_cached(install, flags)
    )
    return replace(lock, uv_flags=tuple(flags), members=_members(path, text, lock, install), cached=cached)


def _flags_with_cached(install: Install, flags: Sequence[str]) -> list[list[str]]:
    """The flags of jobs that install what is only cached: one job for each group, or one for all."""
    if install.only_groups:  # such a job installs that group instead of the others
        flags = choice_flags("package", install.packages)
    option = "only-group" if install.only_groups else "group"
    if install.cache_groups == "all":
        return [[*flags, "--all-groups"]]
    return [[*flags, *choice_flags(option, (name,))] for name in install.cache_groups]


def _members(path: Path, text: str, lock: Lock, install: Install) -> Mapping[str, bool]:
    """The members of a workspace, and whether the dependencies of each are installed."""
    members = workspace_members(text)
    root = canonicalize_name(declared_name(path.parent))
    is_restricted = bool(install.packages or install.only_groups)
    if install.packages == "all" or not (root or is_restricted):
        return dict.fromkeys(members, True)  # a root that is no project stands for all members
    chosen = {str(package.name) for package in lock.pylock.packages if package.directory}
    chosen |= {str(canonicalize_name(name)) for name in install.packages}
    return {name: name in chosen or (name == root and not is_restricted) for name in members}


def read_script_lock(path: Path, text: str, other: OtherUv) -> Lock:
    """Read the lock of a script; raise LockError, with uv's reason, if uv does not."""
    script = script_of(path)
    if not script.is_file():
        raise LockError(f"no script {script} for {path}", hint="uv needs the script that the lock was made from")
    return _exported(path, "script", text, ["--script", script.name], other)


def _exported(path: Path, kind: LockKind, text: str, flags: Sequence[str], other: OtherUv) -> Lock:
    """The lock as uv converts it; raise LockError with uv's reason if it does not."""
    argv = ["export", "--frozen", "--quiet", "--no-header", "--format", "pylock.toml", *flags]
    exported = run_uv(argv, path.parent)
    program = version = None
    if exported.returncode and other.cache and (specifier := other.requirement_for(_unwrapped(exported.stderr))):
        program = fetch_uv(specifier, other.cache)
        exported = run_uv(argv, path.parent, program=program)
        version = version_of(program)
    if exported.returncode and "to compute missing hashes" in _unwrapped(exported.stderr):
        # Some indexes give no hashes; uv downloads such files to compute them.
        exported = run_uv(argv, path.parent, program=program, offline=False)
    if exported.returncode and version and _TOO_OLD.search(exported.stderr):
        raise LockError(
            f"uv {version}, which {path} requires, is too old for builder: it cannot export to a pylock.toml",
            hint="admit a uv of 0.6.15 or later with required-version",
        )
    if exported.returncode:
        reason = redact(exported.stderr).strip().removeprefix("error: ") or f"exit code {exported.returncode}"
        raise LockError(f"uv rejected {path}: {reason}", hint=refusal_hint(path, _unwrapped(reason), text))
    pylock = parse_table(path, kind, read_toml(path, exported.stdout))
    return Lock(path=path, kind=kind, pylock=pylock, extras=(), groups=(), uv=version)


def _unwrapped(text: str) -> str:
    """The text on one line: uv breaks long messages into lines."""
    return " ".join(text.split())


def _check_is_read(path: Path) -> None:
    """Raise LockError if uv uses another lock in the folder of this one, that of a workspace."""
    root = workspace_root(path.parent)
    if root is None or root.resolve() == path.parent.resolve():
        return
    used = Path(os.path.relpath(root)) / "uv.lock"
    place = str(used.parent) if used.parent != Path() else "this folder"
    exists = used.is_file()
    raise LockError(
        f"uv does not use {path}: its folder is a member of the workspace in {place}, whose lock is {used}"
        + ("" if exists else ", which does not exist"),
        hint=(f"name {used}" if exists else f"run `uv lock` in {place}")
        + "; if the folder is a project of its own, list it under exclude in [tool.uv.workspace]",
    )


def choice_flags(option: str, names: tuple[str, ...] | Literal["all"]) -> list[str]:
    """The flags of `uv sync` that choose groups, extras or workspace members, as `option` (in the singular) says."""
    if names == "all":
        return [f"--all-{option}s"]
    return [word for name in names for word in (f"--{option}", name)]
