"""Read a lock file of any kind into a `Lock` (PEP 751).

Locks of uv are converted by uv itself: `uv export --format pylock.toml`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

from packaging.pylock import is_valid_pylock_path

from builder.errors import LockError, listed, near
from builder.lock import requirements
from builder.lock.foreign import advice_for
from builder.lock.kept_answer import AnswerCache
from builder.lock.model import Lock, LockKind
from builder.lock.table import parse_table
from builder.lock.text import read_file, read_toml
from builder.lock.uv import OtherUv
from builder.lock.uv_lock import choice_flags, read_script_lock, read_uv_lock
from builder.matrix.schema import Install
from builder.parse import conflict_line


def lock_kind(path: Path) -> LockKind:
    """Tell the kind of a lock from its file name; raise LockError for any other name."""
    if path.name == "uv.lock":
        return "uv.lock"
    if path.name.endswith(".py.lock"):
        return "script"
    if is_valid_pylock_path(path):
        return "pylock.toml"
    if path.suffix in {".txt", ".in"}:
        return "requirements.txt"
    if advice := advice_for(path):
        what, _, instead = advice.partition(": ")
        raise LockError(what, hint=instead)
    raise LockError(
        f"{path} does not have the name of a lock file",
        hint="builder reads uv.lock, pylock.toml (or pylock.<name>.toml), hash-pinned requirements files (.txt) "
        "and the locks of scripts (<name>.py.lock)",
    )


def read_lock(path: Path, install: Install, cache: Path | None = None, *, uv: str | None = None) -> Lock:
    """Read a lock file of any kind; raise LockError if it is invalid.

    `cache` is a folder for what later runs can use, such as answers of package indexes. `uv`
    is the version in the images, which reads the lock if builder's own uv may not; None if no matrix decides that.
    """
    other = OtherUv(version=uv, cache=cache)
    kind = lock_kind(path)
    text = read_file(path)
    if not text.strip():
        raise LockError(f"{path} is empty", hint=f"create it again with {_WRITTEN_BY[kind]}")
    if number := conflict_line(text):
        hint = f"take the file of one side, then run {_WRITTEN_BY[kind]}"
        raise LockError(f"{path}:{number}: an unresolved merge conflict", hint=hint)
    if kind == "uv.lock":
        return read_uv_lock(path, text, install, other)
    if kind == "pylock.toml":
        return _read_pylock(path, text, install)
    if not install.is_default:
        raise LockError(
            f"{path} has no groups or extras, but the matrix selects {listed(_selected_names(install))}",
            hint="remove install.groups and install.extras from the matrix; such a lock is installed whole",
        )
    if kind == "script":
        return read_script_lock(path, text, other)
    table = requirements.to_pylock(path, text, AnswerCache(folder=cache / "index" if cache else None))
    return Lock(path=path, kind=kind, pylock=parse_table(path, kind, table), extras=(), groups=())


def _selected_names(install: Install) -> list[str]:
    names = []
    choices = (
        ("groups", install.groups), ("extras", install.extras), ("packages", install.packages),
        ("cache-groups", install.cache_groups),
    )  # fmt: skip
    for noun, chosen in choices:
        names += [f"all {noun}"] if chosen == "all" else [*chosen]
    return [*names, *install.only_groups]


_WRITTEN_BY: Final[Mapping[LockKind, str]] = {
    "uv.lock": "`uv lock`",
    "script": "`uv lock --script`",
    "pylock.toml": "`uv export --format pylock.toml`",
    "requirements.txt": "`uv pip compile --generate-hashes`",
}


def _read_pylock(path: Path, text: str, install: Install) -> Lock:
    if install.packages or install.only_groups:
        raise LockError(
            f"{path} does not say what belongs to a workspace member, or to a group alone",
            hint="remove install.packages and install.only-groups, or use the uv.lock",
        )
    pylock = parse_table(path, "pylock.toml", read_toml(path, text))
    defaults = list(pylock.default_groups or []) if install.default_groups else []
    named = _checked_names(path, "group", install.groups, pylock.dependency_groups or [])
    groups = tuple(dict.fromkeys([*defaults, *named]))
    extras = tuple(_checked_names(path, "extra", install.extras, pylock.extras or []))
    cached = _checked_names(path, "group", install.cache_groups, pylock.dependency_groups or [])

    def lock_with(groups: tuple[str, ...]) -> Lock:
        flags = (*choice_flags("group", groups), *choice_flags("extra", extras))
        return Lock(path=path, kind="pylock.toml", pylock=pylock, extras=extras, groups=groups, uv_flags=flags)

    return replace(lock_with(groups), cached=tuple(lock_with((*groups, name)) for name in cached if name not in groups))


def _checked_names(path: Path, noun: str, names: tuple[str, ...] | Literal["all"], known: Sequence[str]) -> list[str]:
    for name in () if names == "all" else names:
        if name not in known:
            raise LockError(
                f"{path} has no {noun} {name!r}{near(name, known)}",
                hint=f"{noun}s in the lock: {listed(list(known)) or 'none'}; fix install.{noun}s in the matrix",
            )
    return list(known if names == "all" else names)
