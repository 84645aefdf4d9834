"""Wheels by their file names (PEP 427): their tags, and what those of a package that fit no cell are for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Final
from urllib.parse import unquote, urlsplit

from packaging.pylock import PackageArchive
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from builder.errors import listed
from builder.matrix.model import Cell

_SYSTEMS: Final = {
    "macosx": "macOS", "win": "Windows", "manylinux": "Linux", "musllinux": "Linux", "linux": "Linux",
    "ios": "iOS", "android": "Android", "emscripten": "Emscripten", "pyodide": "Pyodide", "wasi": "WASI",
}  # fmt: skip
_LIBC_TAG = re.compile(r"(?:many|musl)linux_(?P<major>\d+)_(?P<minor>\d+)_")
_FREE_THREADED = re.compile(r"cp3\d+t")
_CPYTHON = re.compile(r"cp3(?P<minor>\d+)")


def archive_name(archive: PackageArchive) -> str:
    """The file name of an archive by direct URL or path: a wheel, or a source tree."""
    path = unquote(urlsplit(archive.url).path) if archive.url else archive.path or ""
    return path.rpartition("/")[2]


@lru_cache(maxsize=1 << 16)  # each cell looks at the same wheels
def tags_of(filename: str) -> frozenset[Tag]:
    """The tags of a wheel (PEP 425); none if the file name is not a wheel's."""
    try:
        return parse_wheel_filename(filename)[-1]
    except InvalidWheelFilename:
        return frozenset()


def wheels_that_exist(filenames: Sequence[str], cell: Cell) -> str:
    """What the wheels of a package are for, in the respect in which none of them fits the cell: `only macOS`."""
    tags = [tag for filename in filenames for tag in tags_of(filename)]
    for fits, describe in _RESPECTS if tags else ():
        fitting = [tag for tag in tags if fits(tag, cell)]
        if not fitting:
            return describe(tags, cell)
        tags = fitting
    return listed(sorted(filenames))


def _fits_system(tag: Tag, _: Cell) -> bool:
    return tag.platform == "any" or "linux" in tag.platform


def _fits_machine(tag: Tag, cell: Cell) -> bool:
    return tag.platform == "any" or tag.platform.endswith(f"_{cell.platform.machine}")


def _fits_libc(tag: Tag, cell: Cell) -> bool:
    return not tag.platform.startswith("manylinux" if cell.family == "alpine" else "musllinux")


def _fits_libc_version(tag: Tag, cell: Cell) -> bool:
    match = _LIBC_TAG.match(tag.platform)
    return match is None or (int(match["major"]), int(match["minor"])) <= tuple(map(int, cell.libc.split(".")))


def _systems(tags: Iterable[Tag], _: Cell) -> str:
    words = {re.split("[0-9_]", tag.platform)[0] for tag in tags}
    return "only " + " and ".join(sorted({_SYSTEMS.get(word, word) for word in words}))


def _machines(tags: Iterable[Tag], _: Cell) -> str:
    machines = {re.sub(r"^[a-z]+(_\d+_\d+|\d*)_", "", tag.platform) for tag in tags}
    return "only " + " and ".join(sorted(machines))


def _libcs(tags: Iterable[Tag], _: Cell) -> str:
    return f"only {'musl' if any(tag.platform.startswith('musl') for tag in tags) else 'glibc'}"


def _libc_versions(tags: Iterable[Tag], cell: Cell) -> str:
    platforms = [tag.platform for tag in tags]
    oldest = min(platforms, key=lambda each: tuple(map(int, re.findall(r"_(\d+)_(\d+)_", each)[0])))
    return f"they need {oldest} or newer, and the base has {cell.libc}"


def _pythons(tags: Iterable[Tag], cell: Cell) -> str:
    threaded = {tag.abi for tag in tags if _FREE_THREADED.fullmatch(tag.abi)}
    if threaded and all(tag.abi in threaded for tag in tags):
        return f"only {listed(sorted(threaded))}, which is free-threaded"
    minors = sorted({int(match["minor"]) for tag in tags if (match := _CPYTHON.fullmatch(tag.interpreter))})
    if not minors:
        return "only " + listed(sorted({tag.interpreter for tag in tags}))
    first, last = f"cp3{minors[0]}", f"cp3{minors[-1]}"
    text = f"only {first}" if first == last else f"only {first} to {last}"
    return f"{text}, none of them free-threaded" if cell.interpreter.is_free_threaded and not threaded else text


# Each respect in which a wheel may fit a cell, and how to describe wheels of which none does.
_RESPECTS: Final[tuple[tuple[Callable[[Tag, Cell], bool], Callable[[Iterable[Tag], Cell], str]], ...]] = (
    (_fits_system, _systems),
    (_fits_machine, _machines),
    (_fits_libc, _libcs),
    (_fits_libc_version, _libc_versions),
    (lambda *_: False, _pythons),
)
