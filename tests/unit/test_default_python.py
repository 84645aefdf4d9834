"""The Python of a project without a matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builder.errors import LockError
from builder.lock.project import default_python
from builder.matrix.facts import NEWEST_PYTHON
from tests import locks
from tests.locks import pure

NEWEST = f"3.{NEWEST_PYTHON}"


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
    ("requires", "python"), [(None, NEWEST), (">=3.10", NEWEST), ("<3.13,>=3.10", "3.12"), (">=3.11.5,<3.12", "3.11")]
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
