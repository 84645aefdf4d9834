"""Lock files that cannot be read: one clear error, before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import LockError
from builder.lock.read import read_lock
from builder.matrix.schema import Install

TOP = 'lock-version = "1.0"\ncreated-by = "tests"\n'


def refusal(path: Path, content: str | bytes | None = None) -> str:
    """What reading the lock is answered with."""
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(LockError) as raised:
        read_lock(path, Install())
    assert raised.value.exit_code == 2
    assert str(path) in raised.value.what
    return str(raised.value)


@pytest.mark.parametrize("name", ["uv.lock", "pylock.toml", "pylock.dev.toml", "requirements.txt"])
def test_no_lock_there(tmp_path: Path, name: str) -> None:
    """Broken: a mistyped --lock ends in a traceback, or does not say how to get a lock."""
    assert "name it with --lock; `uv lock` writes one" in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["poetry.lock", "Pipfile.lock", "pylock.a.b.toml", "uv.lock.bak", "lock"])
def test_name_of_no_lock(tmp_path: Path, name: str) -> None:
    """Broken: another tool's lock is taken for one of ours."""
    assert "builder reads uv.lock, pylock.toml" in refusal(tmp_path / name, "")


@pytest.mark.parametrize(
    ("name", "writer"),
    [("uv.lock", "`uv lock`"), ("pylock.toml", "--format pylock.toml"), ("requirements.txt", "--generate-hashes")],
)
@pytest.mark.parametrize("content", ["", " \n\t\n"])
def test_empty_lock(tmp_path: Path, name: str, writer: str, content: str) -> None:
    """Broken: an empty lock makes an empty image."""
    said = refusal(tmp_path / name, content)
    assert "is empty" in said
    assert writer in said


@pytest.mark.parametrize("name", ["uv.lock", "pylock.toml", "requirements.txt"])
def test_folder_in_place_of_a_lock(tmp_path: Path, name: str) -> None:
    """Broken: a lock that cannot be read ends in a traceback."""
    (tmp_path / name).mkdir()
    assert "Is a directory" in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["uv.lock", "pylock.toml", "requirements.txt"])
def test_lock_that_is_no_text(tmp_path: Path, name: str) -> None:
    """Broken: a binary file ends in a traceback."""
    assert "is not UTF-8 text (byte 2)" in refusal(tmp_path / name, b"a=\xff\xfe")


def test_uv_lock_without_its_project(tmp_path: Path) -> None:
    """Broken: a uv.lock without pyproject.toml is handed to uv, whose message speaks of something else."""
    said = refusal(tmp_path / "uv.lock", "version = 1\n")
    assert said.startswith("no pyproject.toml beside ")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("packages = [", "is not TOML"),
        ("created-by = 'x'\npackages = []\n", "Missing required value in 'lock-version'"),
        (TOP, "Missing required value in 'packages'"),
        ('lock-version = "1.0"\npackages = []\n', "Missing required value in 'created-by'"),
        (TOP + "packages = 3\n", "'packages'"),
        (TOP + "[[packages]]\nversion = '1'\n", "'packages[0].name'"),
        (TOP + "[[packages]]\nname = 'one'\nversion = '1'\n", "packages[0]"),
        (TOP + "[[packages]]\nname = 'One'\n", "packages[0].name"),
        (TOP + "[[packages]]\nname = 'one'\nversion = 'x y'\n", "packages[0].version"),
        (TOP + "[[packages]]\nname = 'one'\nmarker = '; touch /tmp/x'\n", "packages[0].marker"),
        (
            TOP + "[[packages]]\nname = 'one'\nwheels = [{ url = 'https://files.invalid/one.whl' }]\n",
            "wheels[0].hashes",
        ),
    ],
)
def test_no_pep_751_lock(tmp_path: Path, content: str, words: str) -> None:
    """Broken: a malformed pylock.toml ends in a traceback, or the message does not say where it is wrong."""
    assert words in refusal(tmp_path / "pylock.toml", content)


@pytest.mark.parametrize("version", ["2.0", "0.9"])
def test_unknown_version(tmp_path: Path, version: str) -> None:
    """Broken: a lock of another version is read as if its keys meant the same."""
    said = refusal(tmp_path / "pylock.toml", f'lock-version = "{version}"\ncreated-by = "x"\npackages = []\n')
    assert f"version {version} is not supported" in said
    assert "lock-version 1.0" in said
