"""Convert a hash-pinned `requirements.txt` to a PEP 751 lock.

The format is pip's: https://pip.pypa.io/en/stable/reference/requirements-file-format/
"""

from __future__ import annotations

import contextlib
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
from builder.lock.index import PinnedProject, fetch_files
from builder.lock.kept_answer import AnswerCache
from builder.lock.page import IndexedFile
from builder.lock.pin import Pin, disagreements, merge, pinned_version
from builder.lock.url import without_credentials
from builder.parse import read_text
from builder.redaction import keep_secret, keep_url_secret

_COMMENT = re.compile(r"(^|\s+)#.*$")
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Z0-9_]+)\}")
_HASH = re.compile(r"--hash[= ](?P<algorithm>sha256|sha384|sha512):(?P<hex>[0-9a-fA-F]+)")
_HARMLESS: Final = {"--require-hashes", "--pre", "--prefer-binary", "--trusted-host"}


@dataclass(kw_only=True)
class _File:
    """The content read so far, included files too; `folder` is that of the file that includes the others."""

    folder: Path
    pins: list[Pin] = field(default_factory=list)
    constraints: list[tuple[Requirement, str]] = field(default_factory=list)
    indexes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    only_binary: set[str] = field(default_factory=set)
    no_binary: set[str] = field(default_factory=set)
    seen: set[Path] = field(default_factory=set)


def to_pylock(path: Path, text: str, cache: AnswerCache) -> dict[str, Any]:
    """Return the file as a PEP 751 table; ask the indexes which files have the pinned hashes.

    Raises a LockError that lists every line that is not pinned with `==` and a hash, names a missing file, or
    contradicts another line.
    """
    content = _File(folder=path.parent)
    _read(path, text, content)
    faults = content.faults or list(disagreements(content.pins, content.constraints))
    if faults:
        raise LockError("\n  ".join([f"cannot use {path} as a lock:", *faults]))
    pins = merge(content.pins)
    direct = [pin for pin in pins if pin.requirement.url]
    indexed = [pin for pin in pins if not pin.requirement.url]
    projects = [PinnedProject(name=pin.requirement.name, version=pin.version, hashes=pin.hashes) for pin in indexed]
    packages = [_direct_package(pin) for pin in direct]
    for pin, files in zip(indexed, fetch_files(projects, content.indexes, cache), strict=True):
        packages.append(_package(pin, [
            file for file in files
            if not (file.is_wheel and _covers(content.no_binary, pin.name))
            and not (not file.is_wheel and _covers(content.only_binary, pin.name))
        ]))  # fmt: skip
    return {"lock-version": "1.0", "created-by": "builder", "packages": packages}


def _covers(names: set[str], name: str) -> bool:
    return name in names or ":all:" in names


def _read(path: Path, text: str, into: _File) -> None:
    into.seen.add(path.resolve())
    for number, line in _logical_lines(text):
        where = f"{os.path.relpath(path, into.folder)}:{number}"
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
    if is_constraint:
        _read_constraints(target, text, into)
    elif target.resolve() not in into.seen:
        _read(target, text, into)


def _read_constraints(path: Path, text: str, into: _File) -> None:
    """Note the constraints that name a version; the others cannot contradict a pin."""
    for number, line in _logical_lines(text):
        with contextlib.suppress(InvalidRequirement):
            into.constraints.append(
                (Requirement(_HASH.sub("", line).strip()), f"{os.path.relpath(path, into.folder)}:{number}")
            )


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
    elif not requirement.url and not pinned_version(requirement):
        into.faults.append(f"{where}: {requirement.name} is not pinned with ==")
    else:
        into.pins.append(Pin(requirement=requirement, hashes=hashes, place=where))


def _package(pin: Pin, files: list[IndexedFile]) -> dict[str, Any]:
    package = _named(pin)
    package["version"] = pin.version
    package["tool"]["builder"]["yanked"] = any(file.is_yanked for file in files)
    for file in files:
        package["index"] = file.index
        entry: dict[str, Any] = {"name": file.filename, "url": file.url, "hashes": dict(file.hashes)}
        if file.size is not None:
            entry["size"] = file.size
        if file.is_wheel:
            package.setdefault("wheels", []).append(entry)
        else:
            package["sdist"] = entry
    return package


def _direct_package(pin: Pin) -> dict[str, Any]:
    url = without_credentials(str(pin.requirement.url))
    entry = {"url": url, "hashes": {name: min(hexes) for name, hexes in pin.hashes.items()}}
    if url.partition("#")[0].endswith(".whl"):
        return {**_named(pin), "wheels": [entry]}
    return {**_named(pin), "archive": entry}


def _named(pin: Pin) -> dict[str, Any]:
    package: dict[str, Any] = {"name": pin.name, "tool": {"builder": {"place": pin.place}}}
    if pin.requirement.marker:
        package["marker"] = str(pin.requirement.marker)
    return package
