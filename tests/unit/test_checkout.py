"""The files of a project outside a git repository that a job's checkout contains."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path, PurePosixPath

import pytest

from builder.verify.checkout import Checkout, checkout_tar
from tests import locks
from tests.locks import pure


def entries(checkout: Checkout | None) -> dict[str, tarfile.TarInfo]:
    """The entries of the checkout's tar by name, without the probes."""
    with checkout_tar(checkout) as file, tarfile.open(fileobj=io.BytesIO(file.read())) as tar:
        return {entry.name: entry for entry in tar if not entry.name.startswith("probes")}


@pytest.fixture
def project(tmp_path: Path) -> Checkout:
    """A project with every kind of file and folder."""
    for name in (
        "pyproject.toml",
        "src/app/__init__.py",
        "src/app/__pycache__/__init__.cpython-312.pyc",
        ".venv/bin/python",
        "venv/bin/python",
        "node_modules/x/index.js",
        ".mypy_cache/x.json",
        ".pytest_cache/x",
        ".ruff_cache/x",
        ".tox/x",
        ".github/workflows/ci.yml",
        "docs/venv.md",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    (tmp_path / "link").symlink_to("src")
    (tmp_path / "dangling").symlink_to("nowhere")
    return Checkout(top=tmp_path, workdir=PurePosixPath(), lock=locks.read(tmp_path, pure("one")))


def test_everything_goes_but_caches_and_environments(project: Checkout) -> None:
    """Broken: a job lacks files of the project, or gets gigabytes of caches."""
    assert sorted(name.removeprefix("project/") for name in entries(project)) == [
        ".github",
        ".github/workflows",
        ".github/workflows/ci.yml",
        "dangling",
        "docs",
        "docs/venv.md",
        "link",
        "project",
        "pylock.toml",
        "pyproject.toml",
        "src",
        "src/app",
        "src/app/__init__.py",
    ]


def test_folders_come_before_what_is_in_them(project: Checkout) -> None:
    """Broken: the engine creates the folders itself, and only root can write to them."""
    names = list(entries(project))
    assert all(names.index(str(PurePosixPath(name).parent)) < names.index(name) for name in names[1:])


def test_everybody_may_write_and_nobody_is_named(project: Checkout) -> None:
    """Broken: a job that is not root cannot write to its checkout, or sees the name of this user."""
    for entry in entries(project).values():
        assert (entry.uid, entry.gid, entry.uname, entry.gname) == (0, 0, "", "")
        if entry.isreg():
            assert entry.mode & 0o666 == 0o666
        if entry.isdir():
            assert entry.mode == 0o777


def test_links_stay_links(project: Checkout) -> None:
    """Broken: a link is followed, or a dangling one causes a traceback."""
    found = entries(project)
    assert (found["project/link"].linkname, found["project/dangling"].linkname) == ("src", "nowhere")


def test_lock_in_a_subfolder(tmp_path: Path) -> None:
    """Broken: a job does not start in the lock's folder, or lacks the rest of the repository."""
    (tmp_path / "backend").mkdir()
    (tmp_path / "shared.txt").touch()
    checkout = Checkout(
        top=tmp_path, workdir=PurePosixPath("backend"), lock=locks.read(tmp_path / "backend", pure("one"))
    )
    assert checkout.path == "/builds/project/backend"
    assert set(entries(checkout)) == {
        "project",
        "project/backend",
        "project/backend/pylock.toml",
        "project/shared.txt",
    }


def test_no_checkout_at_all() -> None:
    """Broken: an image cannot be verified without a project."""
    assert list(entries(None)) == ["project"]


def test_other_files_are_along() -> None:
    """Broken: checks in the image do not find their script."""
    with checkout_tar(None, {"probes/verify.sh": b"echo"}) as file, tarfile.open(fileobj=file) as tar:
        script = tar.extractfile("probes/verify.sh")
        assert script is not None
        assert script.read() == b"echo"
