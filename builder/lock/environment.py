"""What a cell can install by the packaging standards: environment markers (PEP 508) and wheel tags (PEP 425)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

from packaging.markers import Environment
from packaging.tags import Tag, compatible_tags, cpython_tags, generic_tags

from builder.matrix.model import Cell

# A cell without a patch release gets the newest one at the time its base image is pulled.
NEWEST_PATCH: Final = 99

_LEGACY_MANYLINUX: Final[Mapping[tuple[str, int], str]] = {
    ("x86_64", 17): "manylinux2014_x86_64", ("x86_64", 12): "manylinux2010_x86_64", ("x86_64", 5): "manylinux1_x86_64",
    ("aarch64", 17): "manylinux2014_aarch64",
}  # fmt: skip
_OLDEST_GLIBC: Final[Mapping[str, int]] = {"x86_64": 5, "aarch64": 17}


def marker_environment(cell: Cell) -> Environment:
    """The values of the environment markers (PEP 508) in the cell's Python."""
    wanted = cell.interpreter
    minor = ".".join(map(str, wanted.minor))
    full = wanted.version if len(wanted.release) > len(wanted.minor) else f"{minor}.{NEWEST_PATCH}"
    is_pypy = wanted.implementation == "pypy"
    return Environment(
        implementation_name=wanted.implementation,
        implementation_version=cell.uv_python.release if cell.uv_python else full,
        os_name="posix",
        platform_machine=cell.platform.machine,
        platform_release="",
        platform_system="Linux",
        platform_version="",
        python_full_version=cell.uv_python.version if cell.uv_python else full,
        platform_python_implementation="PyPy" if is_pypy else "CPython",
        python_version=minor,
        sys_platform="linux",
    )


@lru_cache(maxsize=64)
def wheel_tags(cell: Cell) -> tuple[Tag, ...]:
    """The wheel tags that the cell's Python and libc support, best first (PEP 425, 600, 656 and 703)."""
    wanted = cell.interpreter
    version = "".join(map(str, wanted.minor))
    platforms = list(_platforms(cell))
    if wanted.implementation == "pypy":
        # PyPy's own version is part of its ABI, as in pp311-pypy311_pp73.
        release = "".join(cell.uv_python.release.split(".")[:2]) if cell.uv_python else ""
        own = generic_tags(f"pp{version}", [f"pypy{version}_pp{release}"], platforms)
        return (*own, *compatible_tags(wanted.minor, "pp3", platforms))
    interpreter = f"cp{version}"
    abi = f"{interpreter}t" if wanted.is_free_threaded else interpreter
    return (
        *cpython_tags(wanted.minor, abis=[abi], platforms=platforms),
        *compatible_tags(wanted.minor, interpreter, platforms),
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
