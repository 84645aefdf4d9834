"""The Python of a project without a matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builder.errors import LockError
from builder.lock.model import Lock
from builder.lock.python import choose_python
from builder.matrix.facts import NEWEST_PYTHON
from tests import locks
from tests.cells import debian
from tests.locks import package, pure

NEWEST = f"3.{NEWEST_PYTHON}"


def default_python(lock: Lock) -> str:
    """The Python of the project on Debian."""
    return choose_python(lock, debian).version


def wheels_for(*minors: int, name: str = "fast", with_sdist: bool = False) -> dict[str, Any]:
    """A package with a Linux wheel for each of these Pythons."""
    tags = [f"cp3{minor}-cp3{minor}-manylinux_2_17_x86_64" for minor in minors]
    return package(name, "1.0", *tags, with_sdist=with_sdist)


@pytest.mark.parametrize(
    ("pinned", "python"),
    [
        ("3.11\n", "3.11"),
        ("3.11.4", "3.11.4"),
        ("cpython-3.12\n", "3.12"),
        ("cpython@3.12.1", "3.12.1"),
        ("# the one of production\n\n  3.11  \n3.12\n", "3.11"),
    ],
)
def test_python_version_file_decides(tmp_path: Path, pinned: str, python: str) -> None:
    """Broken: the image has a Python other than the one in the project's .python-version."""
    (tmp_path / ".python-version").write_text(pinned, encoding="utf-8")
    assert default_python(locks.read(tmp_path, pure("one"), requires_python=">=3.10")) == python


@pytest.mark.parametrize("pinned", ["pypy@3.10\n", "", ">=3.11\n", "3.13t\n", "3.12; touch /tmp/x\n", "# 3.10\n"])
def test_unsupported_python_version_file_is_ignored(tmp_path: Path, pinned: str) -> None:
    """Broken: a .python-version that does not name a CPython release leads to a wrong image or a traceback."""
    (tmp_path / ".python-version").write_text(pinned, encoding="utf-8")
    assert default_python(locks.read(tmp_path, pure("one"), requires_python=">=3.10,<3.14")) == "3.13"


@pytest.mark.parametrize(
    ("requires", "python"),
    [
        (None, NEWEST),
        (">=3.10", NEWEST),
        ("<3.13,>=3.10", "3.12"),
        (">=3.11.5,<3.12", "3.11"),
        ("==3.10.19", "3.10.19"),
        (">=3.9,<3.10.5", "3.10.4"),
        (">=3.10,!=3.14.*", "3.13"),
    ],
)
def test_newest_that_the_lock_allows(tmp_path: Path, requires: str | None, python: str) -> None:
    """Broken: a project without .python-version gets a Python that its lock excludes, or an outdated one."""
    more: dict[str, Any] = {"requires_python": requires} if requires else {}
    assert default_python(locks.read(tmp_path, pure("one"), **more)) == python


def test_lock_for_unknown_pythons_only(tmp_path: Path) -> None:
    """Broken: a lock that only allows unknown Pythons gets an image with a known one."""
    with pytest.raises(LockError, match=r"requires Python >=4; without a matrix builder uses 3\.8 to 3\.") as raised:
        default_python(locks.read(tmp_path, pure("one"), requires_python=">=4"))
    assert "matrix.toml" in raised.value.hint


def test_newest_that_the_packages_allow(tmp_path: Path) -> None:
    """Broken: a lock whose wheels end at 3.12 gets a newer Python, on which it cannot be installed."""
    lock = locks.read(tmp_path, pure("one"), wheels_for(10, 11, 12), requires_python=">=3.10")
    chosen = choose_python(lock, debian)
    assert chosen.version == "3.12"
    assert f"{NEWEST}: no wheel found for package 'fast' 1.0" in chosen.reason


@pytest.mark.parametrize(("minors", "python"), [((10, 11, 12), "3.12"), ((), NEWEST)])
def test_newest_with_wheels(tmp_path: Path, minors: tuple[int, ...], python: str) -> None:
    """Broken: a newer Python is chosen at the price of builds from source, or an older one for nothing."""
    lock = locks.read(tmp_path, wheels_for(*minors, with_sdist=True), requires_python=">=3.10")
    assert default_python(lock) == python


def test_newest_without_wheels_for_any(tmp_path: Path) -> None:
    """Broken: older Pythons are given as the reason for the newest one."""
    lock = locks.read(tmp_path, package("old", "1.0", "cp27-cp27m-win32", with_sdist=True), requires_python=">=3.10")
    chosen = choose_python(lock, debian)
    assert (chosen.version, chosen.reason) == (NEWEST, "the newest that the lock can be installed with")


def test_python_version_file_that_cannot_be_used(tmp_path: Path) -> None:
    """Broken: .python-version leads to an error about a matrix that is not there."""
    (tmp_path / ".python-version").write_text("3.13\n", encoding="utf-8")
    chosen = choose_python(locks.read(tmp_path, wheels_for(11, 12)), debian)
    assert chosen.version == "3.12"
    assert "3.13: no wheel found" in chosen.reason


def test_no_python_for_the_packages(tmp_path: Path) -> None:
    """Broken: the error for a lock that cannot be installed at all speaks of a matrix that is not there."""
    lock = locks.read(tmp_path, wheels_for(12), wheels_for(11, name="other"), requires_python=">=3.11")
    with pytest.raises(LockError, match=r"with any Python that it admits; nearest is 3\.12:\n  no wheel .* 'other'"):
        choose_python(lock, debian)
