"""A uv.lock that is older than its pyproject.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import LockError
from builder.lock.freshness import outdated_reason
from builder.lock.read import read_lock
from builder.matrix.schema import Install
from builder.request import Request, read_project
from tests.uv_locks import package, write_project, write_script

pytestmark = pytest.mark.usefixtures("clean_environment")

GROUPS = """\
[dependency-groups]
dev = []
"""


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock that is up to date, in the working directory."""
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, package("one"), package("two"), more=GROUPS)
    path = Path("uv.lock")
    head, tail = path.read_text(encoding="utf-8").split(']\n\n[[package]]\nname = "one"')
    path.write_text(
        f'{head}]\n\n[package.metadata.requires-dev]\ndev = []\n\n[[package]]\nname = "one"{tail}', encoding="utf-8"
    )
    return path


def edit(old: str, new: str) -> None:
    """Change the pyproject.toml."""
    path = Path("pyproject.toml")
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_current_lock(lock: Path) -> None:
    """Broken: builder warns about locks that are up to date."""
    assert outdated_reason(read_lock(lock, Install())) is None


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("'one'", "'one', 'Three'", "three is not in the lock"),
        ("'one', ", "", "one is no longer required"),
        ("'one'", "'one>=2'", "one is >=2, in the lock any version"),
        ("dev = []", "dev = ['ruff']", "ruff (group dev) is not in the lock"),
        (
            "dev = []",
            "dev = [{ include-group = 'lint' }]\nlint = ['ruff']",
            "ruff (group dev) is not in the lock, ruff (group lint) is not in the lock",
        ),
        ("'one'", "'one[tls]'", "one has extras tls, in the lock no"),
        ("'one'", "'one @ https://files.invalid/one.zip'", "one comes from a URL, in the lock from an index"),
        (
            GROUPS,
            f"{GROUPS}[tool.uv.sources]\none = {{ git = 'https://git.invalid/one' }}\n",
            "one comes from git, in the",
        ),
        ("'one'", "'one; os_name == \"nt\"'", "one has a marker, unlike in the lock"),
        ('">=3.8"', '">=3.9"', "requires-python is >=3.9, in the lock >=3.8"),
        (GROUPS, f"{GROUPS}[tool.uv]\nconstraint-dependencies = ['one<2']\n", "constraint-dependencies differs"),
        (GROUPS, "[project.optional-dependencies]\ntls = ['ssl']\n", "ssl (extra tls) is not in the lock"),
    ],
)
def test_outdated_lock(lock: Path, old: str, new: str, difference: str) -> None:
    """Broken: an image is baked from a lock that lacks what its project requires, without a word."""
    edit(old, new)
    reason = str(outdated_reason(read_lock(lock, Install())))
    assert reason.startswith(f"uv.lock is older than pyproject.toml: {difference}")
    assert reason.endswith("; run `uv lock`")
    assert f"warning: {reason}" in read_project(Request()).notes


def test_locked(lock: Path) -> None:
    """Broken: --locked accepts an outdated lock, or refuses a current one."""
    assert read_project(Request(locked=True)).lock.path == lock
    edit("'one'", "'one>=2'")
    with pytest.raises(LockError, match=r"uv\.lock is older than pyproject\.toml: one is >=2") as raised:
        read_project(Request(locked=True))
    assert "run `uv lock`" in raised.value.hint


def test_locked_when_uv_cannot_tell(lock: Path) -> None:
    """Broken: --locked accepts a lock that nothing has been able to compare with its project."""
    edit("dev = []", "dev = [{ include-group = 'dev' }]")
    with pytest.raises(LockError, match=r"uv cannot tell whether uv\.lock is current: .*malformed dependency groups"):
        read_project(Request(locked=True))


def test_locked_reaches_child_pipelines() -> None:
    """Broken: a child pipeline accepts an outdated lock that the command line refused."""
    assert Request(locked=True).options == ("--locked",)


def test_member_of_a_workspace(lock: Path) -> None:
    """Broken: only the root of a workspace is compared with the lock."""
    member = Path("member")
    member.mkdir()
    entry = '[[package]]\nname = "member"\nversion = "1.0"\nsource = { virtual = "member" }\n\n[package.metadata]\n'
    text = lock.read_text(encoding="utf-8").replace(
        "[[package]]", '[manifest]\nmembers = ["app", "member"]\n\n[[package]]', 1
    )
    lock.write_text(f"{text}\n{entry}", encoding="utf-8")
    edit("[dependency-groups]", '[tool.uv.workspace]\nmembers = ["member"]\n[dependency-groups]')
    (member / "pyproject.toml").write_text(
        '[project]\nname = "member"\nversion = "1.0"\nrequires-python = ">=3.8"\ndependencies = ["four"]\n',
        encoding="utf-8",
    )
    assert "four is not in the lock" in str(outdated_reason(read_lock(lock, Install())))

    # A source that the root has for all members, which not all versions of uv note for each one.
    edit("[tool.uv.workspace]", '[tool.uv.sources]\nfour = { git = "https://git.invalid/four" }\n[tool.uv.workspace]')
    lock.write_text(f'{lock.read_text(encoding="utf-8")}requires-dist = [{{ name = "four" }}]\n', encoding="utf-8")
    assert "four" not in str(outdated_reason(read_lock(lock, Install())))


def test_script(tmp_path: Path) -> None:
    """Broken: the lock of a script is never compared with the script."""
    path = write_script(tmp_path, package("one"))
    assert outdated_reason(read_lock(path, Install())) is None
    script = tmp_path / "tool.py"
    script.write_text(script.read_text(encoding="utf-8").replace("['one']", "['one', 'two']"), encoding="utf-8")
    assert "tool.py.lock is older than" in str(outdated_reason(read_lock(path, Install())))
