"""`uv.lock` files of unusual shapes, as uv writes them: builder selects what uv installs."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import LockError
from builder.lock.read import read_lock
from builder.lock.select import select
from builder.matrix.schema import Install
from tests.cells import debian
from tests.uv_locks import package, write_project

pytestmark = pytest.mark.usefixtures("clean_environment")


def test_package_without_a_file_for_linux(tmp_path: Path) -> None:
    """Broken: a lock with a package that has files only for other platforms is refused for every cell."""
    path = write_project(
        tmp_path, package("one"), package("gpu", files=()), markers={"gpu": "sys_platform == 'darwin'"}
    )
    assert [each.name for each in select(read_lock(path, Install()), debian()).packages] == ["one"]


def test_package_without_any_file(tmp_path: Path) -> None:
    """Broken: an image lacks a package that uv cannot install either, or the error does not name it."""
    path = write_project(tmp_path, package("one"), package("gpu", files=()))
    with pytest.raises(LockError, match=r"the lock has no file of package 'gpu' 1\.0"):
        select(read_lock(path, Install()), debian())
