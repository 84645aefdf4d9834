"""A `uv.lock` that uv rejects: one clear error with uv's reason and what to do."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from uv import find_uv_bin

from builder.errors import LockError
from builder.lock.read import read_lock
from builder.lock.select import select
from builder.matrix.schema import Install
from tests.cells import debian
from tests.commandline import builder
from tests.matrices import SMALL

PYPROJECT = """\
[project]
name = "app"
version = "1.0"
requires-python = ">=3.11"

[project.optional-dependencies]
tls = []
plain = []

[dependency-groups]
dev = []
docs = []
lint = []

[tool.uv]
conflicts = [
    [{ group = "docs" }, { group = "lint" }],
    [{ extra = "tls" }, { extra = "plain" }],
]
"""

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without dependencies, locked by uv, as the working directory."""
    (tmp_path / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    subprocess.run([find_uv_bin(), "lock", "--quiet", "--offline"], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(project: Path, **install: Any) -> str:
    """The error message for the lock."""
    before = sorted(path.name for path in project.iterdir())
    with pytest.raises(LockError) as raised:
        read_lock(project / "uv.lock", Install.model_validate(install))
    assert raised.value.exit_code == 2
    assert sorted(path.name for path in project.iterdir()) == before
    return str(raised.value)


def test_good_lock(project: Path) -> None:
    """Broken: the unchanged lock is invalid, so that the tests below prove nothing."""
    lock = read_lock(project / "uv.lock", Install(groups=("docs",), extras=("tls",)))
    assert lock.uv_flags == ("--group", "docs", "--extra", "tls")
    assert select(lock, debian("3.12")).packages == ()


@pytest.mark.parametrize(
    ("install", "words"),
    [
        ({"groups": ("dosc",)}, "Group `dosc` is not defined"),
        ({"extras": ("tsl",)}, "Extra `tsl` is not defined"),
        ({"groups": ("docs", "lint")}, "incompatible with the conflicts"),
        ({"groups": "all"}, "incompatible with the conflicts"),
        ({"extras": ("tls", "plain")}, "Extras `plain` and `tls` are incompatible"),
        ({"extras": "all"}, "Extras `plain` and `tls` are incompatible"),
    ],
)
def test_invalid_groups_and_extras(project: Path, install: Mapping[str, Any], words: str) -> None:
    """Broken: an unknown group or extra, or two that conflict, are ignored, or users must look up which ones exist."""
    error = refusal(project, **install)
    assert words in error
    assert "fix groups and extras of install, or of the profile, in the matrix" in error
    assert "groups: dev, docs, lint; extras: plain, tls" in error


def test_group_that_the_lock_does_not_know_yet(project: Path) -> None:
    """Broken: the error lists the group that it says is not defined."""
    path = project / "pyproject.toml"
    path.write_text(PYPROJECT.replace("docs = []", "docs = []\nfresh = []"), encoding="utf-8")
    error = refusal(project, groups=("fresh",))
    assert "pyproject.toml defines it, but the lock does not know it: run `uv lock`" in error


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("version = 1\n", "version = 99\n", "the lock was written by a newer uv than the one installed with builder"),
        ("version = 1\n", "version = [\n", "restore it from version control, or remove it and run `uv lock`"),
        (
            "version = 1\n",
            "<<<<<<< HEAD\nversion = 1\n",
            "an unresolved merge conflict",
        ),
        ("version = 1\n", "version = 'one'\n", "uv rejected"),
        ("version = 1\n", "", "uv rejected"),
        ('name = "app"\n', "", "uv rejected"),
    ],
    ids=["newer", "no-toml", "merge-conflict", "version-of-another-type", "no-version", "package-without-a-name"],
)
def test_lock_that_uv_rejects(project: Path, old: str, new: str, words: str) -> None:
    """Broken: a lock that uv cannot read causes a traceback, or an error without uv's reason."""
    path = project / "uv.lock"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    assert text != path.read_text(encoding="utf-8")
    error = refusal(project)
    assert words in error
    assert "uv.lock" in error


@pytest.mark.parametrize("content", [b"[project\n", b"project = 3\n", b"\xff"])
def test_pyproject_that_uv_rejects(project: Path, content: bytes) -> None:
    """Broken: an invalid pyproject.toml causes a traceback, or an error without uv's reason."""
    (project / "pyproject.toml").write_bytes(content)
    assert "uv rejected" in refusal(project)


def test_uv_variables_are_ignored(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: UV_* variables in the user's environment change the image."""
    for name, value in {"UV_NO_DEV": "1", "UV_FROZEN": "x", "UV_PROJECT": "/nowhere", "UV_OFFLINE": "maybe"}.items():
        monkeypatch.setenv(name, value)
    assert read_lock(project / "uv.lock", Install()).kind == "uv.lock"


def test_python_outside_requires_python(project: Path) -> None:
    """Broken: builder makes an image for a Python that the project does not support."""
    lock = read_lock(project / "uv.lock", Install())
    with pytest.raises(LockError, match=r"Python 3\.10 is outside requires-python '>=3\.11'"):
        select(lock, debian("3.10"))


def test_command_line_shows_the_error(project: Path) -> None:
    """Broken: a rejected lock leads to a wrong exit code, or its error goes to stdout."""
    (project / "matrix.toml").write_text(SMALL + '[install]\ngroups = ["dosc"]\n', encoding="utf-8")
    ended = builder("plan", "--lock", "uv.lock")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("builder: uv rejected uv.lock: Group `dosc` is not defined")
