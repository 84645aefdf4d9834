"""The wheel tags of a cell, compared with those that packaging reports for a real interpreter."""

from __future__ import annotations

import os
import platform
import sys

import pytest
from packaging import tags

from builder.lock.environment import wheel_tags
from builder.matrix.model import Cell
from tests.cells import alpine, debian


def _glibc() -> str | None:
    """The version of this machine's glibc; None if it has another libc."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (AttributeError, ValueError, OSError):
        return None
    return version if name == "glibc" else None


@pytest.mark.skipif(
    sys.platform != "linux"
    or _glibc() is None
    or platform.machine() not in {"x86_64", "aarch64"}
    or platform.python_implementation() != "CPython",
    reason="compares with the tags of this machine, which does not run CPython on glibc",
)
def test_tags_are_those_of_this_machine() -> None:
    """Broken: a cell with the same Python and glibc as this machine accepts other wheels."""
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    cell = debian(f"3.{sys.version_info.minor}", libc=_glibc() or "", architecture=architecture)
    ours, theirs = list(wheel_tags(cell)), list(tags.sys_tags())
    assert set(ours) == set(theirs)
    # A plain linux_* wheel does not state its libc: packaging ranks it first, but uv, which installs, ranks it last.
    with_libc = [tag for tag in theirs if not tag.platform.startswith("linux_")]
    assert [tag for tag in ours if not tag.platform.startswith("linux_")] == with_libc


@pytest.mark.parametrize(
    ("cell", "first", "last"),
    [
        (debian(libc="2.36"), "manylinux_2_36_x86_64", "manylinux1_x86_64"),
        (debian(libc="2.41", architecture="arm64"), "manylinux_2_41_aarch64", "manylinux2014_aarch64"),
        (alpine(), "musllinux_1_2_x86_64", "musllinux_1_0_x86_64"),
        (alpine(architecture="arm64"), "musllinux_1_2_aarch64", "musllinux_1_0_aarch64"),
    ],
)
def test_platforms_go_from_the_newest_libc_to_the_oldest(cell: Cell, first: str, last: str) -> None:
    """Broken: a wheel for an older libc is preferred, or wheels for old ones are not accepted at all."""
    platforms = list(dict.fromkeys(tag.platform for tag in wheel_tags(cell)))
    machine = cell.platform.machine
    assert platforms[0] == first
    assert platforms[platforms.index(last) + 1 :] == [f"linux_{machine}", "any"]


@pytest.mark.parametrize("minor", range(10, 15))
def test_abis_of_each_python(minor: int) -> None:
    """Broken: a Python accepts wheels for a newer one, or rejects those for the stable ABI of an older one."""
    pairs = {(tag.interpreter, tag.abi) for tag in wheel_tags(debian(f"3.{minor}"))}
    own = f"cp3{minor}"
    assert {abi for interpreter, abi in pairs if interpreter == own} == {own, "abi3", "none"}
    assert {interpreter for interpreter, abi in pairs if abi == "abi3"} == {f"cp3{n}" for n in range(2, minor + 1)}
    assert {interpreter for interpreter, abi in pairs if abi == "none"} == {
        own, "py3", *(f"py3{n}" for n in range(minor + 1))
    }  # fmt: skip
