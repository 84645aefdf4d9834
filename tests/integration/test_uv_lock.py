"""`uv.lock` files of unusual shapes, as uv writes them: builder selects what uv installs."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from pathlib import Path

import pytest

from builder.errors import LockError
from builder.lock.read import read_lock
from builder.lock.select import select
from builder.matrix.schema import Install
from builder.request import Request, read_project
from tests.cells import debian
from tests.integration.server import Answer, serving
from tests.uv_locks import package, write_project

WORKSPACE = '[tool.uv.workspace]\nmembers = ["member"]\n'

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


def member_of(root: Path) -> Path:
    """A workspace whose member has a lock of its own, with another version of a package; return the member's lock."""
    member = root / "member"
    member.mkdir()
    lock = write_project(member, package("one", "2.0"))
    (root / "pyproject.toml").write_text(f'[project]\nname = "root"\nversion = "1.0"\n{WORKSPACE}', encoding="utf-8")
    return lock


def test_lock_of_a_workspace_member(tmp_path: Path) -> None:
    """Broken: another lock is read than the one that was named: uv goes up to the workspace's."""
    lock = member_of(tmp_path)
    (tmp_path / "uv.lock").write_text("version = 1\n", encoding="utf-8")
    with pytest.raises(LockError) as raised:
        read_lock(lock, Install())
    assert f"uv does not use {lock}: its folder is a member of the workspace" in raised.value.what
    assert raised.value.hint.startswith("name ")
    assert "exclude in [tool.uv.workspace]" in raised.value.hint


def test_lock_of_a_workspace_member_alone(tmp_path: Path) -> None:
    """Broken: uv's error says that there is no lock where there is one."""
    lock = member_of(tmp_path)
    with pytest.raises(LockError, match="which does not exist") as raised:
        read_lock(lock, Install())
    assert "run `uv lock` in " in raised.value.hint


def test_group_of_a_member(tmp_path: Path) -> None:
    """Broken: the error about a group that a member defines says that there are no groups."""
    path = write_project(tmp_path, package("one"), package("api", files=(), source='editable = "api"'))
    (tmp_path / "api").mkdir()
    project = '[project]\nname = "api"\nversion = "1.0"\n[dependency-groups]\nlint = []\n'
    (tmp_path / "api" / "pyproject.toml").write_text(project, encoding="utf-8")
    with pytest.raises(LockError, match="Group `lnt` is not defined") as raised:
        read_lock(path, Install(groups=("lnt",)))
    assert raised.value.hint.endswith("groups: none; extras: none; groups of api: lint; extras of api: none")


def test_lock_of_a_project_below_another(tmp_path: Path) -> None:
    """Broken: a project that the workspace above it excludes cannot be built."""
    lock = member_of(tmp_path)
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text(f'{pyproject.read_text(encoding="utf-8")}exclude = ["member"]\n', encoding="utf-8")
    assert [each.version for each in select(read_lock(lock, Install()), debian()).packages] == ["2.0"]


def test_lock_of_the_workspace_from_a_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: in a member's folder builder takes another lock than uv does."""
    member_of(tmp_path)
    write_project(tmp_path, package("one", "1.0"), name="root", more=WORKSPACE)
    (tmp_path / "member" / "src").mkdir()
    monkeypatch.chdir(tmp_path / "member" / "src")
    lock = read_project(Request()).lock
    assert (lock.path, [each.name for each in lock.pylock.packages]) == (Path("../../uv.lock"), ["one"])


def test_project_without_a_lock_below_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a project without a lock gets the packages of another one around it."""
    write_project(tmp_path, package("one"))
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "pyproject.toml").write_text('[project]\nname = "inner"\nversion = "1.0"\n', encoding="utf-8")
    monkeypatch.chdir(inner)
    with pytest.raises(LockError, match="no lock file in this folder"):
        read_project(Request())


def test_settings_of_uv_pip_are_not_those_of_uv_sync(tmp_path: Path) -> None:
    """Broken: settings of `uv pip` change what is installed from a uv.lock, though `uv sync` ignores them."""
    both = package("both", files=("both-1.0-py3-none-any.whl", "both-1.0.tar.gz"))
    path = write_project(tmp_path, both, more='[tool.uv.pip]\nno-binary = [":all:"]\n')
    assert [each.artifact for each in select(read_lock(path, Install()), debian()).packages] == ["wheel"]


def test_files_without_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a lock with files of an index that gives no hashes is refused, though uv installs from it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # uv keeps what it downloads by URL
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("one-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: one\nVersion: 1.0\n")
        archive.writestr("one-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("one-1.0.dist-info/RECORD", "")
    with serving(lambda _: Answer(body=content.getvalue()), monkeypatch) as server:
        url = f"http://{server.host}/one-1.0-py3-none-any.whl"
        path = write_project(tmp_path, package("one", files=(url,), source=f'registry = "http://{server.host}/simple"'))
        path.write_text(re.sub(', hash = "[^"]*"', "", path.read_text(encoding="utf-8")), encoding="utf-8")
        (one,) = select(read_lock(path, Install()), debian()).packages
    assert one.source["hashes"] == {"sha256": hashlib.sha256(content.getvalue()).hexdigest()}
