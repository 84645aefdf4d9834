"""Checks whether Python accepts the bytecode of every .py file of the environment and the standard library.

The rules are those of PEP 552 and of importlib's `_classify_pyc` and `_validate_*_pyc`. A thorough check compiles
every file again, and compares what the bytecode means: that takes ten times as long. Where the standard library's
bytecode was proven before, with this very base image, that of wheels which were proven is not looked at again.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import marshal
import os
import struct
import subprocess
import sys
import types
import warnings
from typing import Iterator, List, Optional, Set, Tuple

from builder.contract import STDLIB, VENV
from builder.tree import wheel_id
from builder.verify.probes.files import archives, files_below
from builder.verify.probes.shell import Expected, Failed, Shell, site_packages

UNCHECKED, CHECKED = 0b01, 0b11
# Runs in a process of its own for each processor; where this package is, is the first argument.
COMPARE = """
import sys
sys.path[:0] = [sys.argv[1]]
from builder.verify.probes.bytecode import print_changed
print_changed()
"""


def bytecode(expected: Expected, _: Shell) -> str:
    """Every source file that compiles has bytecode which the interpreter accepts, and which was made from it."""
    proven = proven_files(expected)
    paths = [path for path in sources(roots(expected)) if path not in proven]
    faults: List[Tuple[str, str]] = []
    uncompilable = 0
    for path in paths:
        reason = bytecode_fault(path)
        if reason is not None and compiles(path):
            faults.append((path, reason))
        elif reason is not None:
            uncompilable += 1
    if faults:
        text = "each job would compile %d of %d files, such as %s (%s)"
        raise Failed(text % (len(faults), len(paths), faults[0][0], faults[0][1]))
    if expected.thorough:
        require_meanings(paths)
    made = ", made from these very sources" if expected.thorough else ""
    accepted = len(paths) - uncompilable
    text = "%d of %d files have bytecode%s; %d do not compile with this Python"
    before = "; %d more had it before" % len(proven) if proven else ""
    return text % (accepted, len(paths), made, uncompilable) + before


def roots(expected: Expected) -> List[str]:
    """The folders to check: the standard library, and the environment's site-packages."""
    lib = os.path.join(VENV, "lib")
    own = [os.path.join(lib, name, "site-packages") for name in os.listdir(lib)]
    return own if STDLIB in expected.proven else [os.path.dirname(os.__file__), *own]


def proven_files(expected: Expected) -> Set[str]:
    """The files of wheels whose bytecode this Python has accepted before."""
    site = os.path.realpath(site_packages(VENV))
    tops = archives().items() if STDLIB in expected.proven else ()
    return {
        os.path.join(site, path)
        for top, name in tops
        if wheel_id(name) in expected.proven
        for path in files_below(top)
        if path.endswith(".py")
    }


def sources(folders: List[str]) -> Iterator[str]:
    """Yield every .py file below the folders once."""
    seen = set()
    for top in folders:
        for folder, _, names in os.walk(os.path.realpath(top)):
            if folder not in seen:
                seen.add(folder)
                for name in names:
                    if name.endswith(".py"):
                        yield os.path.join(folder, name)


def bytecode_fault(path: str) -> Optional[str]:
    """Return why the interpreter rejects the file's bytecode; None if it accepts it."""
    try:
        with open(importlib.util.cache_from_source(path), "rb") as file:
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
    status = os.stat(path)
    same = struct.unpack("<II", data[8:]) == (int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF)
    return None if same else "bytecode of another time"


def compiles(path: str) -> bool:
    """Whether this Python can compile the file; test data, templates and code for other versions may not compile."""
    return compiled(path) is not None


def compiled(path: str) -> Optional[types.CodeType]:
    """What the file means; None if it does not compile."""
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return compile(file.read(), path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, UnicodeError, RecursionError):
        return None


def require_meanings(paths: List[str]) -> None:
    """Compile all files again, on all processors; raise Failed at bytecode that means something else."""
    count = len(os.sched_getaffinity(0))
    top = os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3))
    argv = [sys.executable, "-I", "-S", "-B", "-c", COMPARE, top]
    running = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(count)
    ]
    faults: List[str] = []
    for number, process in enumerate(running):  # each gets its part at once, before any is waited for
        assert process.stdin is not None
        process.stdin.write(json.dumps(paths[number::count]).encode())
        process.stdin.close()
        process.stdin = None
    for process in running:
        output, errors = process.communicate()
        if process.returncode:
            raise Failed("the bytecode cannot be compared: %s" % errors.decode("utf-8", "replace").strip()[-300:])
        faults += json.loads(output)
    if faults:
        raise Failed("the bytecode of %d files was not made from them, such as %s" % (len(faults), min(faults)))


def print_changed() -> None:
    """Print which of the paths on stdin have bytecode that means something else, as JSON."""
    gc.disable()  # it would look through millions of objects that are soon gone
    print(json.dumps([path for path in json.load(sys.stdin) if not means_the_same(path)]))


def means_the_same(path: str) -> bool:
    """Whether the file's bytecode is what compiling it gives."""
    code = compiled(path)
    if code is None:
        return True
    try:
        with open(importlib.util.cache_from_source(path), "rb") as file:
            return bool(marshal.loads(file.read()[16:]) == code)
    except (OSError, ValueError, EOFError, TypeError):
        return False
