"""Invalid lock files: one clear error before anything else happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import LockError
from builder.lock.model import LockKind
from builder.lock.read import read_lock
from builder.lock.table import parse_table
from builder.matrix.schema import Install
from builder.request import Request, read_project
from tests.locks import table_of

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


@pytest.mark.parametrize("name", ["pylock.a.b.toml", "uv.lock.bak", "lock"])
def test_unknown_lock_name(tmp_path: Path, name: str) -> None:
    """Broken: builder accepts a lock of an unsupported tool."""
    assert "builder reads uv.lock, pylock.toml" in refusal(tmp_path / name, "")


@pytest.mark.parametrize("name", ["pylock.dev.toml", "dev-requirements.txt", "requirements/dev.txt", "tool.py.lock"])
def test_lock_with_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Broken: the error says that there is no lock, and not that --lock takes the one that is there."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LockError, match="no lock file in this folder") as raised:
        read_project(Request())
    assert raised.value.hint == f"name one with --lock, such as {name}"


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("poetry.lock", "`poetry export --output requirements.txt`"),
        ("Pipfile.lock", "`pipenv requirements --hash > requirements.txt`"),
        ("pdm.lock", "`pdm export --output requirements.txt`"),
        ("environment.yml", "`uv pip compile --generate-hashes requirements.in --output-file requirements.txt`"),
        ("setup.py", "`uv pip compile --generate-hashes setup.py --output-file requirements.txt`"),
        ("Poetry.lock", "`poetry export"),
        ("environment-dev.yaml", "`uv pip compile"),
        ("tool.py", "`uv lock --script tool.py`, and name tool.py.lock"),
        ("requirements.lock", "`uv lock`"),
        ("pyproject.toml", "`uv lock`"),
    ],
)
def test_file_of_another_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, command: str) -> None:
    """Broken: users of another tool are not told how to get a lock, whether they name its file or not."""
    assert f"run {command}" in refusal(tmp_path / name, "")
    if name not in {"pyproject.toml", "Poetry.lock", "environment-dev.yaml", "tool.py"}:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(LockError, match="no lock file in this folder") as raised:
            read_project(Request())
        assert f"{name} is " in raised.value.hint
        assert f"run {command}" in raised.value.hint


@pytest.mark.parametrize("name", ["requirements.txt", "uv.lock"])
def test_only_a_pylock_is_a_pep_751_lock(tmp_path: Path, name: str) -> None:
    """Broken: users are told that a lock is wrong in a format that it is not in."""
    kind: LockKind = "requirements.txt" if name.endswith("txt") else "uv.lock"
    with pytest.raises(LockError, match=r"cannot be used: .*package 'one'") as raised:
        parse_table(tmp_path / name, kind, table_of({"name": "one", "wheels": 3}))
    assert "PEP 751" not in str(raised.value)


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
        (TOP + "[[packages]]\nname = 'One!'\n", "packages[0].name"),
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


@pytest.mark.parametrize("kind", ["wheels", "sdist", "archive"])
def test_hash_that_is_a_path(tmp_path: Path, kind: str) -> None:
    """Broken: a lock names files of this machine in place of hashes, under which builder keeps what it finds out."""
    table = '{url = "https://index.invalid/one-1.0.tar.gz", hashes = {sha256 = "../../../.bashrc"}}'
    if kind == "wheels":
        table = f"[{table.replace('.tar.gz', '-py3-none-any.whl')}]"
    said = refusal(tmp_path / "pylock.toml", f'{TOP}[[packages]]\nname = "one"\nversion = "1.0"\n{kind} = {table}\n')
    assert "package 'one' has the hash '../../../.bashrc', which is not hexadecimal" in said
