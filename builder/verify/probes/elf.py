"""Reads what an ELF file asks of the dynamic loader (System V gABI, "Dynamic Linking"; elf(5))."""

from __future__ import annotations

import struct
from typing import BinaryIO, Dict, List, NamedTuple, Optional, Tuple

MAGIC = b"\x7fELF"
PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NEEDED, DT_STRTAB, DT_STRSZ, DT_SONAME, DT_RPATH, DT_RUNPATH = 1, 5, 10, 14, 15, 29
MOST = 16 << 20  # bytes of a table; a larger one is damaged


class Elf(NamedTuple):
    """A file that is loaded dynamically: `kind` tells word size, byte order and machine, in which all files must agree.

    Paths are as the file has them, with `$ORIGIN` and the like. `interpreter` is empty for a library.
    """

    kind: Tuple[int, int, int]
    needed: List[str]
    soname: str
    rpath: List[str]
    runpath: List[str]
    interpreter: str


class Segment(NamedTuple):
    """A program header."""

    type: int
    offset: int
    address: int
    size: int


def read_elf(path: str) -> Optional[Elf]:
    """Read a file; None if it is no ELF file, is damaged, or has nothing for the dynamic loader."""
    try:
        with open(path, "rb") as file:
            return _read(file)
    except (OSError, struct.error, ValueError, IndexError):
        return None


def _read(file: BinaryIO) -> Optional[Elf]:
    head = file.read(64)
    if head[:4] != MAGIC:
        return None
    is_wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    (machine,) = struct.unpack_from(order + "H", head, 18)
    segments = _segments(file, head, is_wide, order)
    dynamic = next((each for each in segments if each.type == PT_DYNAMIC), None)
    if dynamic is None:
        return None
    entries = _dynamic(_part(file, dynamic.offset, dynamic.size), is_wide, order)
    table = dict(entries)
    strings = _part(file, _offset_of(segments, table[DT_STRTAB]), table[DT_STRSZ]) if DT_STRTAB in table else b"\0"
    paths = {
        tag: [part for part in _text(strings, table.get(tag, 0)).split(":") if part] for tag in (DT_RPATH, DT_RUNPATH)
    }
    interpreter = next((_part(file, each.offset, each.size) for each in segments if each.type == PT_INTERP), b"")
    return Elf(
        kind=(head[4], head[5], machine),
        needed=[_text(strings, value) for tag, value in entries if tag == DT_NEEDED],
        soname=_text(strings, table.get(DT_SONAME, 0)),
        rpath=paths[DT_RPATH] if DT_RPATH in table else [],
        runpath=paths[DT_RUNPATH] if DT_RUNPATH in table else [],
        interpreter=interpreter.rstrip(b"\0").decode("utf-8", "replace"),
    )


def _segments(file: BinaryIO, head: bytes, is_wide: bool, order: str) -> List[Segment]:
    """The program headers."""
    (start,) = struct.unpack_from(order + ("Q" if is_wide else "I"), head, 32 if is_wide else 28)
    size, count = struct.unpack_from(order + "HH", head, 54 if is_wide else 42)
    found = []
    for raw in (_part(file, start + number * size, size) for number in range(count)):
        if is_wide:
            kind, _, offset, address, _, length = struct.unpack_from(order + "IIQQQQ", raw)
        else:
            kind, offset, address, _, length = struct.unpack_from(order + "IIIII", raw)
        found.append(Segment(kind, offset, address, length))
    return found


def _dynamic(raw: bytes, is_wide: bool, order: str) -> List[Tuple[int, int]]:
    """The tags of the dynamic section with their values, up to the end mark."""
    found = []
    for tag, value in struct.iter_unpack(order + ("qQ" if is_wide else "iI"), raw[: len(raw) // 16 * 16]):
        if tag == 0:
            break
        found.append((tag, value))
    return found


def _offset_of(segments: List[Segment], address: int) -> int:
    """Where in the file is what is loaded at an address."""
    for each in segments:
        if each.type == PT_LOAD and each.address <= address < each.address + each.size:
            return address - each.address + each.offset
    raise ValueError("the address is in no segment")


def _part(file: BinaryIO, offset: int, size: int) -> bytes:
    if size > MOST:
        raise ValueError("the table is too large")
    file.seek(offset)
    part = file.read(size)
    if len(part) < size:
        raise ValueError("the file is cut off")
    return part


def _text(strings: bytes, start: int) -> str:
    return strings[start : strings.index(b"\0", start)].decode("utf-8", "replace")


class Elves:
    """ELF files that were read, each once."""

    def __init__(self) -> None:
        self._known: Dict[str, Optional[Elf]] = {}

    def of(self, path: str) -> Optional[Elf]:
        """See `read_elf`."""
        if path not in self._known:
            self._known[path] = read_elf(path)
        return self._known[path]
