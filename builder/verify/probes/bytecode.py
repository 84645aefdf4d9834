"""Checks whether this Python accepts the bytecode of every .py file of the environment and the standard library.

Runs inside an image. Prints one JSON object: {"files", "accepted", "uncompilable", "faults": [[path, reason], …]}.
The rules are those of PEP 552 and of importlib's `_classify_pyc` and `_validate_*_pyc`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import sys
import sysconfig
from collections.abc import Iterator

UNCHECKED, CHECKED = 0b01, 0b11


def roots() -> list[str]:
    """The folders to check: the standard library, and the environment's site-packages."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    base = {sysconfig.get_path(name, vars={"base": sys.base_prefix, "platbase": sys.base_prefix}) for name in names[:2]}
    return sorted(os.path.realpath(path) for path in base | {sysconfig.get_path(name) for name in names[2:]})


def sources(folders: list[str]) -> Iterator[str]:
    """Yield every .py file below the folders once."""
    seen = set()
    for folder in folders:
        for top, _, names in os.walk(folder):
            for name in names:
                path = os.path.realpath(os.path.join(top, name))
                if name.endswith(".py") and path not in seen:
                    seen.add(path)
                    yield os.path.join(top, name)


def bytecode_fault(path: str) -> str | None:
    """Return why the interpreter rejects the file's bytecode; None if it accepts it."""
    cached = importlib.util.cache_from_source(path)
    try:
        with open(cached, "rb") as file:
            data = file.read(16)
    except OSError:
        return "no bytecode"
    if data[:4] != importlib.util.MAGIC_NUMBER:
        return "bytecode of another Python"
    flags = struct.unpack("<I", data[4:8])[0]
    if flags in (UNCHECKED, CHECKED):
        with open(path, "rb") as file:
            return None if importlib.util.source_hash(file.read()) == data[8:] else "bytecode of another source"
    if flags:
        return "bytecode with unknown flags"
    stat = os.stat(path)
    same = struct.unpack("<II", data[8:]) == (int(stat.st_mtime) & 0xFFFFFFFF, stat.st_size & 0xFFFFFFFF)
    return None if same else "bytecode of another time"


def compiles(path: str) -> bool:
    """Whether this Python can compile the file; test data, templates and code for other versions may not compile."""
    try:
        with open(path, "rb") as file:
            compile(file.read(), path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, UnicodeError, RecursionError):
        return False
    return True


def print_findings() -> None:
    """Print the findings."""
    files = accepted = uncompilable = 0
    faults: list[list[str]] = []
    for path in sources(roots()):
        files += 1
        reason = bytecode_fault(path)
        if reason is None:
            accepted += 1
        elif compiles(path):
            faults.append([path, reason])
        else:
            uncompilable += 1
    print(json.dumps({"files": files, "accepted": accepted, "uncompilable": uncompilable, "faults": faults}))


if __name__ == "__main__":
    print_findings()
