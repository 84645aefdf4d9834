"""What a cell can install by the packaging standards: environment markers (PEP 508) and wheel tags (PEP 425)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

from packaging.markers import Environment
from packaging.tags import Tag, compatible_tags, cpython_tags

from builder.matrix.model import Cell

# A cell without a patch release gets the newest one at the time its base image is pulled.
NEWEST_PATCH: Final = 99

_LEGACY_MANYLINUX: Final[Mapping[tuple[str, int], str]] = {
    ("x86_64", 17): "manylinux2014_x86_64", ("x86_64", 12): "manylinux2010_x86_64", ("x86_64", 5): "manylinux1_x86_64",
    ("aarch64", 17): "manylinux2014_aarch64",
}  # fmt: skip
_OLDEST_GLIBC: Final[Mapping[str, int]] = {"x86_64": 5, "aarch64": 17}


def marker_environment(cell: Cell) -> Environment:
    """The values of the environment markers (PEP 508) in the cell's CPython."""
    minor = ".".join(cell.python.split(".")[:2])
    full = cell.python if cell.python != minor else f"{minor}.{NEWEST_PATCH}"
    return Environment(
        implementation_name="cpython",
        implementation_version=full,
        os_name="posix",
        platform_machine=cell.platform.machine,
        platform_release="",
        platform_system="Linux",
        platform_version="",
        python_full_version=full,
        platform_python_implementation="CPython",
        python_version=minor,
        sys_platform="linux",
    )


@lru_cache(maxsize=64)
def wheel_tags(cell: Cell) -> tuple[Tag, ...]:
    """The wheel tags that the cell's CPython and libc support, best first (PEP 425, 600 and 656)."""
    major, minor = (int(part) for part in cell.python.split(".")[:2])
    platforms = list(_platforms(cell))
    interpreter = f"cp{major}{minor}"
    return (
        *cpython_tags((major, minor), abis=[interpreter], platforms=platforms),
        *compatible_tags((major, minor), interpreter, platforms),
    )


def _platforms(cell: Cell) -> Iterator[str]:
    machine = cell.platform.machine
    major, newest = (int(part) for part in cell.libc.split("."))
    if cell.family == "alpine":
        for minor in range(newest, -1, -1):
            yield f"musllinux_{major}_{minor}_{machine}"
    else:
        for minor in range(newest, _OLDEST_GLIBC[machine] - 1, -1):
            yield f"manylinux_{major}_{minor}_{machine}"
            if (machine, minor) in _LEGACY_MANYLINUX:
                yield _LEGACY_MANYLINUX[machine, minor]
    yield f"linux_{machine}"
