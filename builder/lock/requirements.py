"""Convert a hash-pinned `requirements.txt` to a PEP 751 lock.

The format is pip's: https://pip.pypa.io/en/stable/reference/requirements-file-format/
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from builder.errors import LockError
from builder.lock.direct import commit_of, hashes_in, is_git, name_in, source_table
from builder.lock.index import PinnedProject, fetch_files
from builder.lock.kept_answer import AnswerCache
from builder.lock.page import IndexedFile
from builder.lock.pin import Hashes, Pin, disagreements, merge, pinned_version
from builder.lock.url import without_credentials
from builder.parse import read_text
from builder.redaction import keep_secret, keep_url_secret, redact

_COMMENT = re.compile(r"(^|\s+)#.*$")
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Z0-9_]+)\}")
_HASH = re.compile(r"--hash[= ]\s*(?P<algorithm>[^:\s]+):(?P<hex>\S*)")
_DIGITS: Final = {"sha256": 64, "sha384": 96, "sha512": 128}  # of the hashes that pip and uv accept
_INCLUDED = re.compile(r"(?:-[rc]|--(?:requirement|constraint)\b)[=\s]*(?P<name>.+)")
_OPTION = re.compile(r"\s(?P<name>--[a-z][a-z-]*)")
_HARMLESS: Final = {"--require-hashes", "--pre", "--prefer-binary", "--trusted-host", "--use-feature"}


@dataclass(kw_only=True)
class _File:
    """The content read so far, included files too; `folder` is that of the file that includes the others."""

    folder: Path
    pins: list[Pin] = field(default_factory=list)
    constraints: list[tuple[Requirement, str]] = field(default_factory=list)
    indexes: list[str] = field(default_factory=list)
    local: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    only_binary: set[str] = field(default_factory=set)
    no_binary: set[str] = field(default_factory=set)
    seen: set[tuple[Path, bool]] = field(default_factory=set)


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
    projects = [
        PinnedProject(
            name=pin.requirement.name, version=pin.version, hashes=pin.hashes, is_optional=bool(pin.requirement.marker)
        )
        for pin in indexed
    ]
    packages = [{**_named(pin), **source_table(str(pin.requirement.url), pin.hashes)} for pin in direct]
    found = fetch_files(projects, content.indexes, cache)
    packages += [_package(pin, files) for pin, files in zip(indexed, found, strict=True)]
    options = {
        "only-binary": sorted(content.only_binary), "no-binary": sorted(content.no_binary), "local": content.local,
    }  # fmt: skip
    return {"lock-version": "1.0", "created-by": "builder", "packages": packages, "tool": {"builder": options}}


def _read(path: Path, text: str, into: _File) -> None:
    into.seen.add((path.resolve(), False))
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
        _check_editable(value, where, path.parent, into)
    elif name in {"-i", "--index-url"}:
        keep_url_secret(value)
        into.indexes.insert(0, value)
    elif name == "--extra-index-url":
        keep_url_secret(value)
        into.indexes.append(value)
    elif name in {"--only-binary", "--no-binary"}:
        names = into.only_binary if name == "--only-binary" else into.no_binary
        chosen = [name if name == ":all:" else canonicalize_name(name) for name in value.split(",")]
        if ":none:" in chosen:
            names.clear()
        else:
            names.update(chosen)
    elif name == "--hash":
        into.faults.append(f"{where}: --hash without a requirement; a comment or an empty line ends the line before it")
    elif name not in _HARMLESS:
        into.faults.append(f"{where}: option {name} is not supported in a lock; remove it")


def _check_editable(value: str, where: str, folder: Path, into: _File) -> None:
    if "://" in value:
        url = without_credentials(value)
        into.faults.append(f"{where}: -e {url}: only local packages can be editable; write `NAME @ {url}`")
    elif not os.path.isdir(folder / value.partition("[")[0]):  # noqa: PTH112 - no error if the path is too long
        into.faults.append(f"{where}: -e {value}: no such directory; only local packages can be editable")


def _read_included(name: str, where: str, path: Path, into: _File, *, is_constraint: bool) -> None:
    if "://" in name:
        url = without_credentials(name)
        into.faults.append(f"{where}: {url} is not a file here; download it, because it may change")
        return
    target = path.parent / name
    try:
        text = read_text(target)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        into.faults.append(f"{where}: cannot read {name}: {reason}")
        return
    key = target.resolve(), is_constraint
    if key not in into.seen:
        into.seen.add(key)
        (_read_constraints if is_constraint else _read)(target, text, into)


def _read_constraints(path: Path, text: str, into: _File) -> None:
    """Note the constraints that name a version; the others cannot contradict a pin. What they include counts too."""
    for number, line in _logical_lines(text):
        where = f"{os.path.relpath(path, into.folder)}:{number}"
        if included := _INCLUDED.match(line):
            _read_included(included["name"], where, path, into, is_constraint=True)
            continue
        with contextlib.suppress(InvalidRequirement):
            into.constraints.append((Requirement(_HASH.sub("", line).strip()), where))


def _read_requirement(line: str, where: str, into: _File) -> None:
    text = _HASH.sub("", line).strip()
    if text.startswith((".", "/", "file:")):
        into.local += [text] if text.rstrip("/") not in {".", "file:."} else []
        return  # jobs install local packages themselves
    if option := _OPTION.search(text):
        into.faults.append(
            f"{where}: option {option['name']} of a requirement is not supported; [tool.uv] has settings"
        )
        return
    try:
        if re.match(r"[a-z][a-z0-9+.-]*://", text) and (name := name_in(text)):
            text = f"{name} @ {text}"
        requirement = Requirement(text)
        urlsplit(requirement.url or "")
    except ValueError as error:  # InvalidRequirement is one, too
        into.faults.append(f"{where}: {redact(text)!r} is not a requirement: {str(error).splitlines()[0]}")
        return
    if (requirement.url or "").startswith("file:"):
        into.local.append(text)
        return
    hashes = _hashes(line) or hashes_in(requirement.url or "")
    if fault := _unpinned(requirement, hashes) or next(_wrong_hashes(hashes), None):
        into.faults.append(f"{where}: {fault}")
    else:
        known = {name: hexes for name, hexes in hashes.items() if name in _DIGITS}
        into.pins.append(Pin(requirement=requirement, hashes=known, place=where))


def _hashes(line: str) -> dict[str, frozenset[str]]:
    hashes: dict[str, frozenset[str]] = {}
    for match in _HASH.finditer(line):
        hashes[match["algorithm"]] = hashes.get(match["algorithm"], frozenset()) | {match["hex"].lower()}
    return hashes


def _unpinned(requirement: Requirement, hashes: Hashes) -> str | None:
    """Why the requirement does not say exactly what to install; None if it does."""
    name, url = requirement.name, requirement.url or ""
    if is_git(url):
        shown = without_credentials(url)
        return None if commit_of(url) else f"{name} is not pinned to a commit; write `{shown}@` and its 40 digits"
    if not hashes:
        return f"{name} has no --hash; pin with `uv pip compile --generate-hashes`"
    return None if url or pinned_version(requirement) else f"{name} is not pinned with =="


def _wrong_hashes(hashes: Hashes) -> Iterator[str]:
    """What is wrong with the hashes: pip and uv refuse others, too."""
    if hashes and not hashes.keys() & _DIGITS.keys():
        yield f"--hash={min(hashes)}:… is not safe, or unknown; pin with one of {', '.join(_DIGITS)}"
    for name, digits in _DIGITS.items():
        for value in sorted(hashes.get(name, ())):
            if not re.fullmatch(f"[0-9a-f]{{{digits}}}", value):
                yield f"--hash={name}:{value[:12]}… is not {digits} hexadecimal digits"


def _package(pin: Pin, files: Sequence[IndexedFile]) -> dict[str, Any]:
    package = _named(pin)
    package["version"] = str(max((file.version for file in files if file.version), default=pin.version))
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


def _named(pin: Pin) -> dict[str, Any]:
    package: dict[str, Any] = {"name": pin.name, "tool": {"builder": {"place": pin.place}}}
    if pin.requirement.marker:
        package["marker"] = str(pin.requirement.marker)
    return package
