"""The PEP 751 table that a lock is, or was converted to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from packaging.pylock import Package, Pylock, PylockUnsupportedVersionError, PylockValidationError
from packaging.utils import canonicalize_name

from builder.errors import LockError
from builder.lock.model import LockKind

_HASH: Final = re.compile("[0-9a-fA-F]+")
_OLD_SUFFIXES: Final = (".tar.bz2", ".tar.xz", ".tar.zst", ".tar.lzma", ".tar.lz", ".tgz", ".tbz", ".txz", ".tlz")


def parse_table(path: Path, kind: LockKind, table: Mapping[str, Any]) -> Pylock:
    """Parse the table; raise LockError if it is none.

    uv also writes entries without any file, for other platforms; they count only for cells that need them.
    """
    entries = table.get("packages")
    if not isinstance(entries, list):
        entries = []
    entries = [_with_normal_name(entry) for entry in entries]
    sourced = [_with_source(entry) for entry in entries]
    try:
        pylock = Pylock.from_dict({**table, "packages": sourced} if sourced else table)
    except PylockUnsupportedVersionError as error:
        raise LockError(f"{path}: {error}", hint="builder reads lock-version 1.0 (PEP 751)") from error
    except PylockValidationError as error:
        what = f"{path} is not a PEP 751 lock" if kind == "pylock.toml" else f"{path} cannot be used"
        raise LockError(f"{what}: {error}{_entry_name(str(error), entries)}") from error
    packages = [
        package if given is entry else _as_given(package, entry)
        for package, given, entry in zip(pylock.packages, sourced, entries, strict=False)
    ]
    for package in packages:
        _check_hashes(path, package)
    return replace(pylock, packages=list(map(_named, packages)))


def _check_hashes(path: Path, package: Package) -> None:
    """Raise LockError for a hash that is none: what files are kept under on this machine are their hashes."""
    for file in (*(package.wheels or ()), package.sdist, package.archive):
        for value in file.hashes.values() if file else ():
            if not _HASH.fullmatch(value):
                raise LockError(f"{path}: package {package.name!r} has the hash {value!r}, which is not hexadecimal")


def _named(package: Package) -> Package:
    """The package with the file name in each wheel, which would otherwise be taken from the URL for each cell."""
    if not package.wheels:
        return package
    return replace(package, wheels=[replace(wheel, name=wheel.filename) for wheel in package.wheels])


def _with_normal_name(entry: Any) -> Any:
    """The entry with the name as PEP 751 wants it; uv takes it in any form."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        return entry
    return {**entry, "name": canonicalize_name(entry["name"])}


def _with_source(entry: Any) -> Any:
    """The entry or, if packaging.pylock refuses what uv accepts in it, a copy with a stand-in: everything else counts.

    uv installs sdists with old suffixes; and entries without any file are those of other platforms.
    """
    if not isinstance(entry, dict):
        return entry
    sdist = entry.get("sdist")
    if isinstance(sdist, dict) and str(sdist.get("name") or sdist.get("url")).endswith(_OLD_SUFFIXES):
        return {**entry, "sdist": {**sdist, "name": f"{entry.get('name')}-{entry.get('version')}.tar.gz"}}
    if entry.keys() & {"vcs", "directory", "archive", "sdist", "wheels"}:
        return entry
    return {**entry, "directory": {"path": "."}}


def _as_given(package: Package, entry: Mapping[str, Any]) -> Package:
    """The package without the stand-in."""
    if package.sdist is None:
        return replace(package, directory=None)
    return replace(package, sdist=replace(package.sdist, name=entry["sdist"].get("name")))


def _entry_name(error: str, entries: Sequence[Any]) -> str:
    """The name of the package that an error of packaging.pylock gives only the number of."""
    match = re.search(r"packages\[(\d+)\]", error)
    name = entries[int(match[1])].get("name") if match and isinstance(entries[int(match[1])], dict) else None
    return f" (package {name!r})" if isinstance(name, str) else ""
