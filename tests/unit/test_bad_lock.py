"""Invalid lock files: one clear error before anything else happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import LockError
from builder.lock.read import read_lock
from builder.matrix.schema import Install

TOP = 'lock-version = "1.0"\ncreated-by = "tests"\n'


def refusal(path: Path, content: str | bytes | None = None) -> str:
    """The error message for the lock."""
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(LockError) as raised:
        read_lock(path, Install())
    assert raised.value.exit_code == 2
    assert str(path) in raised.value.what
    return str(raised.value)


@pytest.mark.parametrize("name", ["uv.lock", "pylock.toml", "pylock.dev.toml", "requirements.txt", "tool.py.lock"])
def test_missing_lock(tmp_path: Path, name: str) -> None:
    """Broken: a mistyped --lock causes a traceback, or the error does not say how to get a lock."""
    assert "name it with --lock; `uv lock` writes one" in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["poetry.lock", "Pipfile.lock", "pylock.a.b.toml", "uv.lock.bak", "lock"])
def test_unknown_lock_name(tmp_path: Path, name: str) -> None:
    """Broken: builder accepts a lock of an unsupported tool."""
    assert "builder reads uv.lock, pylock.toml" in refusal(tmp_path / name, "")


@pytest.mark.parametrize(
    ("name", "writer"),
    [
        ("uv.lock", "`uv lock`"),
        ("pylock.toml", "--format pylock.toml"),
        ("requirements.txt", "--generate-hashes"),
        ("tool.py.lock", "`uv lock --script`"),
    ],
)
@pytest.mark.parametrize("content", ["", " \n\t\n"])
def test_empty_lock(tmp_path: Path, name: str, writer: str, content: str) -> None:
    """Broken: an empty lock results in an empty image."""
    error = refusal(tmp_path / name, content)
    assert "is empty" in error
    assert writer in error


@pytest.mark.parametrize("name", ["uv.lock", "pylock.toml", "requirements.txt"])
def test_folder_instead_of_a_lock(tmp_path: Path, name: str) -> None:
    """Broken: a lock that cannot be read causes a traceback."""
    (tmp_path / name).mkdir()
    assert "Is a directory" in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["uv.lock", "pylock.toml", "requirements.txt"])
def test_lock_that_is_not_text(tmp_path: Path, name: str) -> None:
    """Broken: a binary file causes a traceback."""
    assert "is not UTF-8 text (byte 2)" in refusal(tmp_path / name, b"a=\xff\xfe")


def test_script_lock_without_its_script(tmp_path: Path) -> None:
    """Broken: without the script, users get uv's misleading error message."""
    error = refusal(tmp_path / "tool.py.lock", "version = 1\n")
    assert error.startswith(f"no script {tmp_path / 'tool.py'} for ")


def test_uv_lock_without_its_project(tmp_path: Path) -> None:
    """Broken: without a pyproject.toml, users get uv's misleading error message."""
    error = refusal(tmp_path / "uv.lock", "version = 1\n")
    assert error.startswith("no pyproject.toml next to ")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("packages = [", "is not TOML"),
        ("created-by = 'x'\npackages = []\n", "Missing required value in 'lock-version'"),
        (TOP, "Missing required value in 'packages'"),
        ('lock-version = "1.0"\npackages = []\n', "Missing required value in 'created-by'"),
        (TOP + "packages = 3\n", "'packages'"),
        (TOP + "[[packages]]\nversion = '1'\n", "'packages[0].name'"),
        (TOP + "[[packages]]\nname = 'One'\n", "packages[0].name"),
        (TOP + "[[packages]]\nname = 'one'\nversion = 'x y'\n", "packages[0].version"),
        (TOP + "[[packages]]\nname = 'one'\nmarker = '; touch /tmp/x'\n", "packages[0].marker"),
        (
            TOP + "[[packages]]\nname = 'one'\nwheels = [{ url = 'https://files.invalid/one.whl' }]\n",
            "wheels[0].hashes",
        ),
        (TOP + "[[packages]]\nname = 'one'\nwheels = 3\n", "(package 'one')"),
        (TOP + "packages = [3]\n", "packages[0]"),
    ],
)
def test_invalid_pylock(tmp_path: Path, content: str, words: str) -> None:
    """Broken: a malformed pylock.toml causes a traceback, or the error does not say where the fault is."""
    assert words in refusal(tmp_path / "pylock.toml", content)


@pytest.mark.parametrize("version", ["2.0", "0.9"])
def test_unknown_version(tmp_path: Path, version: str) -> None:
    """Broken: a lock of an unsupported version is read as if it were version 1.0."""
    error = refusal(tmp_path / "pylock.toml", f'lock-version = "{version}"\ncreated-by = "x"\npackages = []\n')
    assert f"version {version} is not supported" in error
    assert "lock-version 1.0" in error
