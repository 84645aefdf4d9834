"""Convert a hash-pinned `requirements.txt` to a PEP 751 lock.

The format is pip's: https://pip.pypa.io/en/stable/reference/requirements-file-format/
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from builder.errors import LockError
from builder.lock.index import PinnedProject, fetch_files, without_credentials
from builder.parse import read_text
from builder.redaction import keep_secret, keep_url_secret

_COMMENT = re.compile(r"(^|\s+)#.*$")
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Z0-9_]+)\}")
_HASH = re.compile(r"--hash[= ](?P<algorithm>sha256|sha384|sha512):(?P<hex>[0-9a-fA-F]+)")
_HARMLESS: Final = {"--require-hashes", "--pre", "--prefer-binary", "--trusted-host"}


@dataclass(kw_only=True)
class _File:
    """The content read so far, included files too: pinned requirements with their hashes, indexes, faults."""

    pins: list[tuple[Requirement, dict[str, frozenset[str]]]] = field(default_factory=list)
    indexes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    only_binary: set[str] = field(default_factory=set)
    no_binary: set[str] = field(default_factory=set)
    seen: set[Path] = field(default_factory=set)


def to_pylock(path: Path, text: str) -> dict[str, Any]:
    """Return the file as a PEP 751 table; ask the indexes which files have the pinned hashes.

    Raises a LockError that lists every line that is not pinned with `==` and a hash, or names a missing file.
    """
    content = _File()
    _read(path, text, content)
    if content.faults:
        raise LockError("\n  ".join([f"cannot use {path} as a lock:", *content.faults]))
    direct = [pin for pin in content.pins if pin[0].url]
    indexed = [pin for pin in content.pins if not pin[0].url]
    projects = [PinnedProject(name=r.name, version=_version(r), hashes=hashes) for r, hashes in indexed]
    packages = [_direct_package(requirement, hashes) for requirement, hashes in direct]
    for (requirement, _), files in zip(indexed, fetch_files(projects, content.indexes), strict=True):
        name = canonicalize_name(requirement.name)
        packages.append(_package(requirement, [
            file for file in files
            if not (file.is_wheel and _covers(content.no_binary, name))
            and not (not file.is_wheel and _covers(content.only_binary, name))
        ]))  # fmt: skip
    return {"lock-version": "1.0", "created-by": "builder", "packages": packages}


def _covers(names: set[str], name: str) -> bool:
    return name in names or ":all:" in names


def _read(path: Path, text: str, into: _File) -> None:
    into.seen.add(path.resolve())
    for number, line in _logical_lines(text):
        where = f"{path.name}:{number}"
        if line.startswith("-"):
            _read_option(line, where, path, into)
        else:
            _read_requirement(line, where, into)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield (number of the first line, text), with continuation lines joined and comments removed."""
    joined, start = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        start = start if joined else number
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            joined += line[:-1] + " "
            continue
        whole = _COMMENT.sub("", joined + line).strip()
        joined = ""
        if whole:
            yield start, _VARIABLE.sub(_expanded, whole)
    if joined.strip():
        yield start, joined.strip()


def _expanded(match: re.Match[str]) -> str:
    """The value of a variable, which messages mask: pip has variables for the sake of passwords."""
    value = os.environ.get(match["name"], match[0])
    if "://" in value:
        keep_url_secret(value)
    elif value != match[0]:
        keep_secret(value)
    return value


def _read_option(line: str, where: str, path: Path, into: _File) -> None:
    try:
        words = shlex.split(line)
    except ValueError as error:
        into.faults.append(f"{where}: {error}")
        return
    name, equals, value = words[0].partition("=")
    value = value if equals else " ".join(words[1:])
    if not equals and not name.startswith("--") and len(name) > 2:
        name, value = name[:2], name[2:]
    if name in {"-r", "--requirement", "-c", "--constraint"}:
        _read_included(value, where, path, into, is_constraint=name in {"-c", "--constraint"})
    elif name in {"-e", "--editable"}:
        target = path.parent / value.partition("[")[0]
        if "://" in value or not target.is_dir():
            into.faults.append(
                f"{where}: -e {without_credentials(value)}: no such directory; only local packages can be editable"
            )
    elif name in {"-i", "--index-url"}:
        keep_url_secret(value)
        into.indexes.insert(0, value)
    elif name == "--extra-index-url":
        keep_url_secret(value)
        into.indexes.append(value)
    elif name in {"--only-binary", "--no-binary"}:
        names = into.only_binary if name == "--only-binary" else into.no_binary
        names.update(name if name == ":all:" else canonicalize_name(name) for name in value.split(","))
    elif name not in _HARMLESS:
        into.faults.append(f"{where}: option {name} is not supported in a lock; remove it")


def _read_included(name: str, where: str, path: Path, into: _File, *, is_constraint: bool) -> None:
    target = path.parent / name
    try:
        text = read_text(target)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        into.faults.append(f"{where}: cannot read {name}: {reason}")
        return
    if not is_constraint and target.resolve() not in into.seen:
        _read(target, text, into)


def _read_requirement(line: str, where: str, into: _File) -> None:
    hashes: dict[str, frozenset[str]] = {}
    for match in _HASH.finditer(line):
        hashes[match["algorithm"]] = hashes.get(match["algorithm"], frozenset()) | {match["hex"].lower()}
    text = _HASH.sub("", line).strip()
    if text.startswith((".", "/", "file:")):
        return  # jobs install local packages themselves
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        into.faults.append(f"{where}: {text!r} is not a requirement: {str(error).splitlines()[0]}")
        return
    if not hashes:
        into.faults.append(f"{where}: {requirement.name} has no --hash; pin with `uv pip compile --generate-hashes`")
    elif not requirement.url and _version(requirement) == "":
        into.faults.append(f"{where}: {requirement.name} is not pinned with ==")
    else:
        into.pins.append((requirement, hashes))


def _version(requirement: Requirement) -> str:
    specifiers = list(requirement.specifier)
    if len(specifiers) != 1 or specifiers[0].operator not in {"==", "==="} or specifiers[0].version.endswith("*"):
        return ""
    return specifiers[0].version


def _package(requirement: Requirement, files: list[Any]) -> dict[str, Any]:
    package = _named(requirement)
    package["version"] = _version(requirement)
    for file in files:
        package["index"] = file.index
        entry = {"name": file.filename, "url": file.url, "hashes": dict(file.hashes)}
        if file.size is not None:
            entry["size"] = file.size
        if file.is_wheel:
            package.setdefault("wheels", []).append(entry)
        else:
            package["sdist"] = entry
    return package


def _direct_package(requirement: Requirement, hashes: dict[str, frozenset[str]]) -> dict[str, Any]:
    url = without_credentials(str(requirement.url))
    entry = {"url": url, "hashes": {name: min(hexes) for name, hexes in hashes.items()}}
    if url.partition("#")[0].endswith(".whl"):
        return {**_named(requirement), "wheels": [entry]}
    return {**_named(requirement), "archive": entry}


def _named(requirement: Requirement) -> dict[str, Any]:
    package: dict[str, Any] = {"name": canonicalize_name(requirement.name)}
    if requirement.marker:
        package["marker"] = str(requirement.marker)
    return package
