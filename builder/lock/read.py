"""Read a lock file of any kind into a `Lock` (PEP 751).

A `uv.lock` is converted by uv itself: `uv export --format pylock.toml`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from packaging.pylock import Pylock, PylockUnsupportedVersionError, PylockValidationError, is_valid_pylock_path

from builder.errors import LockError, listed, near
from builder.lock import requirements
from builder.lock.model import Lock, LockKind
from builder.lock.project import read_text, read_toml
from builder.lock.uv import run_uv, workspace_root
from builder.matrix.schema import Install
from builder.process import redact


def lock_kind(path: Path) -> LockKind:
    """Tell the kind of a lock from its file name; raise LockError for any other name."""
    if path.name == "uv.lock":
        return "uv.lock"
    if is_valid_pylock_path(path):
        return "pylock.toml"
    if path.suffix in {".txt", ".in"}:
        return "requirements.txt"
    raise LockError(
        f"{path} does not have the name of a lock file",
        hint="builder reads uv.lock, pylock.toml (or pylock.<name>.toml) and hash-pinned requirements files (.txt)",
    )


def read_lock(path: Path, install: Install) -> Lock:
    """Read a lock file of any kind; raise LockError if it is invalid."""
    kind = lock_kind(path)
    text = read_text(path)
    if not text.strip():
        raise LockError(f"{path} is empty", hint=f"create it again with {_WRITTEN_BY[kind]}")
    if kind == "uv.lock":
        return _read_uv_lock(path, text, install)
    if kind == "pylock.toml":
        return _read_pylock(path, text, install)
    if install.groups or install.extras:
        raise LockError(
            f"{path} has no groups or extras, but the matrix selects {listed(_selected_names(install))}",
            hint="remove install.groups and install.extras from the matrix; a requirements file is installed whole",
        )
    table = requirements.to_pylock(path, text)
    return Lock(path=path, kind=kind, pylock=_pylock(path, kind, table), extras=(), groups=())


def _selected_names(install: Install) -> list[str]:
    groups = ["all groups"] if install.groups == "all" else [*install.groups]
    return groups + (["all extras"] if install.extras == "all" else [*install.extras])


_WRITTEN_BY: Final[Mapping[LockKind, str]] = {
    "uv.lock": "`uv lock`",
    "pylock.toml": "`uv export --format pylock.toml`",
    "requirements.txt": "`uv pip compile --generate-hashes`",
}


def _pylock(path: Path, kind: LockKind, table: Mapping[str, Any]) -> Pylock:
    """Parse the PEP 751 table that the lock is, or was converted to.

    uv also writes entries without any file, for other platforms; they count only for cells that need them.
    """
    entries = table.get("packages")
    if not isinstance(entries, list):
        entries = []
    sourced = [_with_source(entry) for entry in entries]
    try:
        pylock = Pylock.from_dict({**table, "packages": sourced} if sourced else table)
    except PylockUnsupportedVersionError as error:
        raise LockError(f"{path}: {error}", hint="builder reads lock-version 1.0 (PEP 751)") from error
    except PylockValidationError as error:
        what = f"{path} is not a PEP 751 lock" if kind == "pylock.toml" else f"{path} cannot be used"
        raise LockError(f"{what}: {error}{_entry_name(str(error), entries)}") from error
    packages = [
        package if given is entry else replace(package, directory=None)
        for package, given, entry in zip(pylock.packages, sourced, entries, strict=False)
    ]
    return replace(pylock, packages=packages)


def _with_source(entry: Any) -> Any:
    """The entry or, if it has no file, a copy with a stand-in for one, so that everything else in it is checked."""
    if not isinstance(entry, dict) or entry.keys() & {"vcs", "directory", "archive", "sdist", "wheels"}:
        return entry
    return {**entry, "directory": {"path": "."}}


def _entry_name(error: str, entries: Sequence[Any]) -> str:
    """The name of the package that an error of packaging.pylock gives only the number of."""
    match = re.search(r"packages\[(\d+)\]", error)
    name = entries[int(match[1])].get("name") if match and isinstance(entries[int(match[1])], dict) else None
    return f" (package {name!r})" if isinstance(name, str) else ""


def _read_uv_lock(path: Path, text: str, install: Install) -> Lock:
    if not (path.parent / "pyproject.toml").is_file():
        raise LockError(
            f"no pyproject.toml next to {path}",
            hint="uv needs the pyproject.toml that the uv.lock was made from",
        )
    _check_is_read(path)
    flags = [
        *_choice("group", install.groups),
        *_choice("extra", install.extras),
        *([] if install.default_groups else ["--no-default-groups"]),
    ]
    exported = run_uv(["export", "--frozen", "--quiet", "--no-header", "--format", "pylock.toml", *flags], path.parent)
    if exported.returncode:
        reason = redact(exported.stderr).strip().removeprefix("error: ") or f"exit code {exported.returncode}"
        raise LockError(f"uv rejected {path}: {reason}", hint=_uv_hint(reason, text))
    return Lock(
        path=path, kind="uv.lock", pylock=_pylock(path, "uv.lock", read_toml(path, exported.stdout)),
        extras=(), groups=(), uv_flags=tuple(flags),
    )  # fmt: skip


def _check_is_read(path: Path) -> None:
    """Raise LockError if uv uses another lock in the folder of this one, that of a workspace."""
    root = workspace_root(path.parent)
    if root is None or root.resolve() == path.parent.resolve():
        return
    used = Path(os.path.relpath(root)) / "uv.lock"
    exists = used.is_file()
    raise LockError(
        f"uv does not use {path}: its folder is a member of the workspace in {used.parent}, whose lock is {used}"
        + ("" if exists else ", which does not exist"),
        hint=(f"name {used}" if exists else f"run `uv lock` in {used.parent}")
        + "; if the folder is a project of its own, list it under exclude in [tool.uv.workspace]",
    )


def _uv_hint(reason: str, text: str) -> str:
    if "not defined" in reason or re.search("incompatible with the (declared )?conflicts", reason):
        return "fix install.groups and install.extras in the matrix"
    if re.search(r"^version = ", text, re.MULTILINE) and "schema version" in reason:
        return "the lock was written by a newer uv than the one installed with builder; upgrade builder"
    return "run `uv lock --check` in its folder"


def _choice(option: str, names: tuple[str, ...] | Literal["all"]) -> list[str]:
    if names == "all":
        return [f"--all-{option}s"]
    return [word for name in names for word in (f"--{option}", name)]


def _read_pylock(path: Path, text: str, install: Install) -> Lock:
    pylock = _pylock(path, "pylock.toml", read_toml(path, text))
    defaults = list(pylock.default_groups or []) if install.default_groups else []
    named = _checked_names(path, "group", install.groups, pylock.dependency_groups or [])
    groups = tuple(dict.fromkeys([*defaults, *named]))
    extras = tuple(_checked_names(path, "extra", install.extras, pylock.extras or []))
    flags = (*_choice("group", groups), *_choice("extra", extras))
    return Lock(path=path, kind="pylock.toml", pylock=pylock, extras=extras, groups=groups, uv_flags=flags)


def _checked_names(path: Path, noun: str, names: tuple[str, ...] | Literal["all"], known: Sequence[str]) -> list[str]:
    for name in () if names == "all" else names:
        if name not in known:
            raise LockError(
                f"{path} has no {noun} {name!r}{near(name, known)}",
                hint=f"{noun}s in the lock: {listed(list(known)) or 'none'}; fix install.{noun}s in the matrix",
            )
    return list(known if names == "all" else names)
