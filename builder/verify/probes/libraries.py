"""Checks that the shared libraries which ELF files need are in the image, as the dynamic loader would look for them.

The rules are those of glibc (ld.so(8)) and of musl (ldso/dynlink.c). What a program loads by name at run time (dlopen)
is not known. A package that was built from source fails the check; what a wheel lacks is only told, because wheels have
parts for what few images have, such as drivers.
"""

from __future__ import annotations

import glob
import os
import re
import sys
from functools import partial
from itertools import groupby
from typing import Dict, Iterator, List, Match, NamedTuple, Optional, Set, Tuple

from builder.contract import VENV
from builder.verify.probes.elf import MAGIC, Elf, Elves
from builder.verify.probes.files import recorded
from builder.verify.probes.packages import package_of
from builder.verify.probes.shell import Expected, Failed, Shell

MOST = 5  # faults that are named
DEFAULT = ["/lib64", "/usr/lib64", "/lib", "/usr/lib"]  # glibc
MUSL_DEFAULT = ["/lib", "/usr/local/lib", "/usr/lib"]
MUSL_OWN = {"c", "pthread", "rt", "m", "dl", "util", "xnet"}  # lib*.so of which musl itself is all
MACHINES = {3: "i386", 62: "x86_64", 183: "aarch64"}


class Missing(NamedTuple):
    """A library that a file needs, directly or through another one, and that is not there."""

    path: str
    library: str

    def __str__(self) -> str:
        package = package_of(self.library)
        return "%s needs %s%s" % (self.path, self.library, " (package %s)" % package if package else "")


class Load(NamedTuple):
    """What happens when a file is loaded: libraries that are found, paths by name, and those that are not."""

    found: Dict[str, str]
    missing: List[Missing]


class Loaded(NamedTuple):
    """A file that the loader has loaded, and the files that asked for it, the nearest first."""

    path: str
    elf: Elf
    chain: Tuple[Tuple[str, Elf], ...]


def libraries(expected: Expected, _: Shell) -> str:
    """See the module."""
    loader = Loader(os.path.realpath(sys.executable))
    built: List[Missing] = []
    others: List[Missing] = []
    count = 0
    for name, files in groupby(elf_files(), key=lambda each: each[0]):
        loads = [loader.load(path) for _, path in files]
        count += len(loads)
        (built if name in expected.sources else others).extend(missing_in(loads))
    if built:
        more = " and %d more" % (len(built) - MOST) if len(built) > MOST else ""
        hint = "; add what is missing to the base's packages"
        raise Failed("; ".join(map(str, built[:MOST])) + more + hint)
    told = "%d ELF files, %s" % (
        count,
        "of which wheels lack libraries" if others else "and the libraries that they need",
    )
    return told + "".join("; " + str(each) for each in others[:MOST])


def missing_in(loads: List[Load]) -> List[Missing]:
    """What a package's files lack, each once.

    A library that a wheel carries along may find its own only by the search path of the module that loads it.
    """
    return [
        each
        for each in dict.fromkeys(each for load in loads for each in load.missing)
        if not any(each.library in load.found and each.path in load.found.values() for load in loads)
    ]


def elf_files() -> Iterator[Tuple[str, str]]:
    """Yield the ELF files of the environment, each with the normalized name of its package."""
    lib = os.path.join(VENV, "lib")
    for site in (os.path.join(lib, name, "site-packages") for name in sorted(os.listdir(lib))):
        for folder in sorted(os.listdir(site)):
            record = os.path.join(site, folder, "RECORD")
            if not folder.endswith(".dist-info") or not os.path.exists(record):
                continue
            name = re.sub(r"[-_.]+", "-", folder.split("-")[0]).lower()
            for path in sorted(os.path.normpath(os.path.join(site, each)) for each in recorded(record)):
                if is_elf(path):
                    yield name, path


def is_elf(path: str) -> bool:
    """Whether it is an ELF file; only libraries and programs are looked into, as most files are neither."""
    base = os.path.basename(path)
    try:
        if ".so" not in base and not ("." not in base and os.stat(path).st_mode & 0o111):
            return False
        with open(path, "rb") as file:
            return file.read(4) == MAGIC
    except OSError:
        return False


class Loader:
    """The dynamic loader of the image's Python, whose libraries are loaded before those of any extension module."""

    def __init__(self, program: str) -> None:
        self.elves = Elves()
        self.program = program
        own = self.elves.of(program)
        self.kind = own.kind if own else None
        self.is_musl = bool(own and "ld-musl-" in own.interpreter)
        machine = MACHINES.get(own.kind[2], "") if own else ""
        self.triplet = "%s-linux-gnu" % machine
        self.folders = musl_folders(own.interpreter) if own and self.is_musl else glibc_folders(self.triplet)
        self.present: Dict[str, str] = {}
        if own:
            list(self._load(Loaded(program, own, ()), self.present))

    def load(self, path: str) -> Load:
        """Load a file as a program, or as an extension module; nothing is missing for one of another machine."""
        elf = self.elves.of(path)
        if elf is None or elf.kind != self.kind:
            return Load({}, [])
        if elf.interpreter and not os.path.exists(elf.interpreter):
            return Load({}, [Missing(path, elf.interpreter)])
        own = self.elves.of(self.program)
        found = {} if elf.interpreter else dict(self.present)
        chain = ((self.program, own),) if own and not elf.interpreter else ()
        return Load(found, list(self._load(Loaded(path, elf, chain), found)))

    def _load(self, first: Loaded, present: Dict[str, str]) -> Iterator[Missing]:
        """Load what a file needs, as the loader does: breadth first, each name once."""
        todo: List[Loaded] = [first]
        told: Set[str] = set()
        while todo:
            loaded = todo.pop(0)
            for name in loaded.elf.needed:
                if name in present or name in told or (self.is_musl and is_of_musl(name)):
                    continue
                found = self._find(name, loaded)
                if found is None:
                    told.add(name)
                    yield Missing(loaded.path, name)
                    continue
                path, elf = found
                present[name] = present[elf.soname or name] = path
                todo.append(Loaded(path, elf, ((loaded.path, loaded.elf), *loaded.chain)))

    def _find(self, name: str, by: Loaded) -> Optional[Tuple[str, Elf]]:
        paths = [name] if "/" in name else [os.path.join(folder, name) for folder in self._searched(by)]
        paths = [os.path.normpath(path) for path in paths]
        for path in paths:
            elf = self.elves.of(path)
            if elf is not None and elf.kind == self.kind:
                return path, elf
        return None

    def _searched(self, by: Loaded) -> Iterator[str]:
        """Yield the folders in which a file's libraries are looked for, in order."""
        chain = ((by.path, by.elf), *by.chain)
        variable = [folder for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
        if self.is_musl:
            yield from variable
            for path, elf in chain:
                yield from self._expanded(elf.runpath or elf.rpath, path)
        else:
            for path, elf in chain if not by.elf.runpath else ():
                yield from self._expanded([] if elf.runpath else elf.rpath, path)
            yield from variable
            yield from self._expanded(by.elf.runpath, by.path)
        yield from self.folders

    def _expanded(self, folders: List[str], path: str) -> Iterator[str]:
        """Yield folders with what stands for `$ORIGIN`, `$LIB` and `$PLATFORM`."""
        origin = os.path.dirname(os.path.abspath(path))
        machine = self.triplet.split("-")[0]
        for folder in folders:
            for lib in ("lib/" + self.triplet, "lib64", "lib") if "LIB" in folder else ("",):
                values = {"ORIGIN": origin, "PLATFORM": machine, "LIB": lib}
                yield re.sub(r"\$(?:(ORIGIN|PLATFORM|LIB)|{(ORIGIN|PLATFORM|LIB)})", partial(value_of, values), folder)


def value_of(values: Dict[str, str], match: Match[str]) -> str:
    """What stands for the name that was matched."""
    return values[match.group(1) or match.group(2)]


def is_of_musl(name: str) -> bool:
    """Whether musl does not look for a library, because it is a part of itself."""
    return name.startswith("lib") and name[3:].split(".", maxsplit=1)[0] in MUSL_OWN and "." in name


def musl_folders(interpreter: str) -> List[str]:
    """Where musl looks for libraries: `/lib/ld-musl-x86_64.so.1` reads `/etc/ld-musl-x86_64.path`."""
    folder, name = os.path.split(interpreter)
    listed = os.path.normpath(os.path.join(folder, os.pardir, "etc", name.split(".so")[0] + ".path"))
    try:
        with open(listed, encoding="utf-8") as file:
            return [folder for folder in file.read().replace(":", "\n").split("\n") if folder]
    except OSError:
        return MUSL_DEFAULT


def glibc_folders(triplet: str) -> List[str]:
    """Where glibc looks for libraries: what ld.so.conf lists, of which ld.so.cache is made, and its own folders."""
    own = [os.path.join(folder, triplet) for folder in ("/lib", "/usr/lib")]
    return [*conf_folders("/etc/ld.so.conf", set()), *own, *DEFAULT]


def conf_folders(path: str, seen: Set[str]) -> Iterator[str]:
    """Yield the folders that a file of ldconfig lists, and those it includes (ldconfig(8))."""
    if path in seen:
        return
    seen.add(path)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.partition("#")[0].strip() for line in file]
    except OSError:
        return
    for line in lines:
        words = line.split()
        if words[:1] == ["include"]:
            for pattern in words[1:]:
                for included in sorted(glob.glob(os.path.join(os.path.dirname(path), pattern))):
                    yield from conf_folders(included, seen)
        elif line.startswith("/"):
            yield line.partition("=")[0].strip()
