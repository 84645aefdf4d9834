"""Locks of scripts with inline metadata (PEP 723), which uv writes next to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import LockError
from builder.lock.project import project_name
from builder.lock.python import choose_python
from builder.lock.read import read_lock
from builder.lock.select import select
from builder.matrix.schema import Install
from tests.cells import debian
from tests.locks import INDEX
from tests.uv_locks import package, write_script

pytestmark = pytest.mark.usefixtures("clean_environment")


def test_script_lock(tmp_path: Path) -> None:
    """Broken: the lock of a script cannot be built, or the settings next to it count instead of its own."""
    (tmp_path / "pyproject.toml").write_text("[tool.uv]\nno-index = true\n", encoding="utf-8")
    more = f'[[tool.uv.index]]\nname = "main"\nurl = "{INDEX}"\ndefault = true\n'
    lock = read_lock(write_script(tmp_path, package("one"), more=more), Install())
    selection = select(lock, debian())
    assert [each.name for each in selection.packages] == ["one"]
    assert selection.uv_settings == {"index": [{"name": "main", "url": INDEX, "default": True}]}
    assert project_name(lock) == "tool"


def test_python_of_a_script(tmp_path: Path) -> None:
    """Broken: a script gets a Python that it does not support, or that of the project around it."""
    (tmp_path / "pyproject.toml").write_text('[project]\nrequires-python = ">=3.13"\n', encoding="utf-8")
    lock = read_lock(write_script(tmp_path, package("one"), python="==3.11.*"), Install())
    assert choose_python(lock, debian).version == "3.11"


def test_groups_of_a_script(tmp_path: Path) -> None:
    """Broken: install.groups is silently ignored for the lock of a script."""
    path = write_script(tmp_path, package("one"))
    with pytest.raises(LockError, match="has no groups or extras, but the matrix selects dev"):
        read_lock(path, Install(groups=("dev",)))


def test_script_lock_that_uv_rejects(tmp_path: Path) -> None:
    """Broken: an invalid lock of a script causes a traceback, or an error without uv's reason."""
    path = write_script(tmp_path, package("one"))
    path.write_text("version = 'one'\n", encoding="utf-8")
    with pytest.raises(LockError, match=r"uv rejected .*tool\.py\.lock"):
        read_lock(path, Install())
