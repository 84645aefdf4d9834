"""Projects that require another uv than builder's own: it is fetched as a wheel, reads the lock, and is baked."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.errors import LockError
from builder.lock.read import read_lock
from builder.lock.uv import own_version
from builder.matrix.schema import Install
from builder.request import Request, read_project
from tests.integration.server import Answer, Server, serving
from tests.integration.server import Request as Asked
from tests.uv_locks import package, write_project

VERSIONS = ("0.4.0", "0.9.5", "0.9.7", "0.10.0")
FAKE = """\
#!/bin/sh
case $1 in
    --version) echo "uv {version} (fake)" ;;
    export)
        case {version} in 0.4.*) echo "error: invalid value 'pylock.toml' for '--format'" >&2; exit 2 ;; esac
        printf 'lock-version = "1.0"\\ncreated-by = "{version}"\\npackages = []\\n' ;;
esac
"""

pytestmark = pytest.mark.usefixtures("clean_environment")


def wheel(version: str) -> bytes:
    """A wheel of a uv that exports an empty lock, and says in it which version it is."""
    content = io.BytesIO()
    info = f"uv-{version}.dist-info"
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(f"uv-{version}.data/scripts/uv", FAKE.format(version=version))
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: uv\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return content.getvalue()


def answer(request: Asked) -> Answer:
    """Serve an index that has only these versions of uv."""
    name = request.path.rsplit("/", 1)[-1]
    if name.endswith(".whl"):
        return Answer(body=wheel(name.split("-")[1]))
    links = "".join(f'<a href="/uv-{each}-py3-none-any.whl">uv-{each}-py3-none-any.whl</a>' for each in VERSIONS)
    return Answer(body=links.encode(), headers={"Content-Type": "text/html"})


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The running index, as the user's."""
    with serving(answer, monkeypatch) as server:
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://{server.host}/simple")
        monkeypatch.setenv("UV_NO_CACHE", "1")
        yield server


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """The lock of a project that requires an older uv."""
    more = '[tool.uv]\nrequired-version = ">=0.9.5, <0.10"\n'
    return write_project(tmp_path, package("one"), more=more)


def test_uv_of_the_matrix(index: Server, lock: Path, tmp_path: Path) -> None:
    """Broken: a project that requires an older uv cannot be baked, or another uv reads its lock than is baked."""
    read = read_lock(lock, Install(), tmp_path / "cache", uv="0.9.5")
    assert (read.pylock.created_by, read.uv) == ("0.9.5", "0.9.5")
    fetched = len(index.requests)
    assert read_lock(lock, Install(), tmp_path / "cache", uv="0.9.5").uv == "0.9.5"
    assert len(index.requests) == fetched


def test_uv_of_the_matrix_that_the_project_refuses(index: Server, lock: Path, tmp_path: Path) -> None:
    """Broken: the error for a refused uv does not say what to change, or uv versions are fetched in vain."""
    with pytest.raises(LockError, match="Required uv version") as raised:
        read_lock(lock, Install(), tmp_path / "cache", uv=own_version())
    assert "name a version that required-version admits as `uv` in the matrix" in raised.value.hint
    assert index.requests == []


def test_without_a_matrix(index: Server, lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: without a matrix, a project that requires an older uv cannot be baked, or gets one that it refuses."""
    monkeypatch.setenv("BUILDER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    project = read_project(Request())
    assert (project.lock.pylock.created_by, project.matrix.uv.tag) == ("0.9.7", "0.9.7")
    assert "uv 0.9.7, because the lock requires it" in project.notes


def test_uv_that_is_too_old_to_export(index: Server, tmp_path: Path) -> None:
    """Broken: uv's error about an option that users never gave is shown for a project that requires an old uv."""
    path = write_project(tmp_path, package("one"), more='[tool.uv]\nrequired-version = "<0.5"\n')
    with pytest.raises(LockError, match=r"uv 0\.4\.0, which .* requires, is too old") as raised:
        read_lock(path, Install(), tmp_path / "cache")
    assert "0.6.15 or later" in raised.value.hint


def test_uv_that_cannot_be_fetched(index: Server, lock: Path, tmp_path: Path) -> None:
    """Broken: an index without the uv that a lock needs causes a traceback, or an error without uv's reason."""
    with pytest.raises(LockError, match=r"uv==0\.9\.6 is needed, and cannot be installed: .*No solution"):
        read_lock(lock, Install(), tmp_path / "cache", uv="0.9.6")
    assert list((tmp_path / "cache" / "uv").iterdir()) == []
