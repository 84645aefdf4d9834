"""The command line: its help, and one clear error for each wrong input."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from builder import __version__
from builder.cli.main import COMMANDS as COMMANDS_TABLE
from builder.matrix.schema import schema
from tests import locks
from tests.commandline import Ended, builder
from tests.locks import pure
from tests.matrices import EXAMPLE, SMALL, changed

COMMANDS = ("plan", "render", "build", "verify", "schema", "completion")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a matrix and a lock, as the working directory."""
    (tmp_path / "matrix.toml").write_text(SMALL, encoding="utf-8")
    locks.write(tmp_path, pure("one"), requires_python=">=3.10")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(ended: Ended, exit_code: int = 2) -> str:
    """The error message of a command that did nothing."""
    assert (ended.exit_code, ended.stdout) == (exit_code, "")
    assert "Traceback" not in ended.stderr
    return ended.stderr


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_teaches_the_commands(option: str) -> None:
    """Broken: --help lacks a command, or the meaning of the exit codes."""
    ended = builder(option)
    assert (ended.exit_code, ended.stderr) == (0, "")
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", ended.stdout, re.MULTILINE)
    assert "  builder plan --lock uv.lock\n  Build and verify on this machine:" in ended.stdout
    assert "Exit codes: 0 success" in ended.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    """Broken: a command or one of its options has no help."""
    ended = builder(command, "--help")
    assert ended.exit_code == 0
    assert ended.stdout.startswith(f"Usage: builder {command}")
    options = [each for each in COMMANDS_TABLE[command].load().params if isinstance(each, click.Option)]
    assert [option.name for option in options if not option.help] == []


@pytest.mark.parametrize("command", ["plan", "render", "build"])
def test_commands_that_choose_cells_share_their_options(command: str) -> None:
    """Broken: options that work for a plan do not work for a build."""
    said = builder(command, "--help").stdout
    for option in ("-f, --file", "--lock", "--only", "--platform", "--mirror", "-q, --quiet", "-v, --verbose"):
        assert option in said


def test_version() -> None:
    """Broken: --version does not print the version."""
    assert builder("--version") == Ended(exit_code=0, stdout=f"builder, version {__version__}\n", stderr="")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bild"], "No such command 'bild'"),
        (["--bild"], "No such option"),
        (["plan", "--jsn"], "--json"),
        (["plan", "extra"], "unexpected extra argument"),
        (["render"], "'--output'"),
        (["build", "--jobs", "0"], "'--jobs'"),
        (["build", "--progress", "loud"], "'--progress'"),
        (["verify"], "'IMAGE'"),
        (["completion", "tcsh"], "'tcsh'"),
    ],
)
def test_wrong_usage(arguments: list[str], words: str) -> None:
    """Broken: a mistyped command does something, or the error does not say what is wrong."""
    assert words in refusal(builder(*arguments))


def test_schema() -> None:
    """Broken: `builder schema` prints something other than the schema."""
    assert builder("schema") == Ended(exit_code=0, stdout=schema(), stderr="")


@pytest.mark.parametrize("shell", ["zsh", "fish"])  # bash: tests/integration/test_completion.py
def test_completion(shell: str) -> None:
    """Broken: the shell does not complete builder's commands."""
    ended = builder("completion", shell)
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert "_BUILDER_COMPLETE" in ended.stdout


@pytest.mark.parametrize("command", [["plan"], ["plan", "--json"], ["build"], ["render", "-o", "out"]])
def test_bad_matrix(project: Path, command: list[str]) -> None:
    """Broken: an invalid matrix leads to a wrong exit code, output on stdout, or files."""
    (project / "matrix.toml").write_text(changed('["slim"]', '["slm"]'), encoding="utf-8")
    said = refusal(builder(*command))
    assert said.startswith("builder: matrix.toml:\n  base: 'slm' is not defined (perhaps you meant 'slim'?)")
    assert not (project / "out").exists()


def test_matrix_named_with_f(project: Path) -> None:
    """Broken: -f is ignored, or the error names another file."""
    (project / "ci.toml").write_text("pyhton = []\n" + SMALL, encoding="utf-8")
    assert refusal(builder("plan", "-f", "ci.toml")).startswith("builder: ci.toml:\n  pyhton: unknown key")


def test_folder_in_place_of_the_matrix(project: Path) -> None:
    """Broken: a matrix that cannot be read causes a traceback."""
    assert "cannot read .: Is a directory" in refusal(builder("plan", "-f", "."))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing/uv.lock", None, "no lock file at missing/uv.lock"),
        ("poetry.lock", "x", "poetry.lock is a lock of Poetry"),
        ("uv.lock", "", "uv.lock is empty"),
        ("uv.lock", "version = 1\n", "no pyproject.toml next to uv.lock"),
        ("pylock.bad.toml", "= 1", "pylock.bad.toml is not TOML"),
        ("pylock.new.toml", 'lock-version = "2.0"\ncreated-by = "x"\npackages = []\n', "2.0 is not supported"),
        ("requirements.txt", "one==1.0\n", "requirements.txt:1: one has no --hash"),
    ],
)
def test_bad_lock(project: Path, name: str, content: str | None, words: str) -> None:
    """Broken: an unusable lock leads to a wrong exit code, or output on stdout."""
    if content is not None:
        (project / name).write_text(content, encoding="utf-8")
    assert words in refusal(builder("plan", "--lock", name))


def test_folder_in_place_of_the_lock(project: Path) -> None:
    """Broken: a lock that cannot be read causes a traceback."""
    (project / "uv.lock").mkdir()
    assert "cannot read uv.lock: Is a directory" in refusal(builder("plan", "--lock", "uv.lock"))


def test_no_lock_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: in a folder without a lock, builder does not say which files it looks for."""
    monkeypatch.chdir(tmp_path)
    said = refusal(builder("plan"))
    assert "no lock file in this folder (uv.lock, pylock.toml, requirements.txt)" in said
    assert "--lock" in said


def test_below_the_projects_folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: in a folder below the project's, builder finds neither lock nor matrix."""
    (project / "matrix.toml").write_text(changed('["3.12"]', '["3.9"]'), encoding="utf-8")
    (project / "src" / "shop").mkdir(parents=True)
    monkeypatch.chdir(project / "src" / "shop")
    said = refusal(builder("plan"))
    assert "../../pylock.toml does not cover the cell 3.9-slim" in said
    assert "--only python=3.10 matches no cell of ../../matrix.toml" in refusal(
        builder("plan", "--only", "python=3.10")
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "python=3.9"], "--only python=3.9 matches no cell of matrix.toml"),
        (["--only", "slim"], "does not select cells"),
        (["--platform", "linux/s390x"], "unsupported platform 'linux/s390x'"),
        (["--mirror", "docker.io"], "'docker.io' is not a mirror"),
    ],
)
def test_options_that_ask_for_what_is_not_there(project: Path, arguments: list[str], words: str) -> None:
    """Broken: a wrong option causes a traceback, or is reported only after requests to registries."""
    assert words in refusal(builder("plan", *arguments))


def test_mirrors_of_the_environment(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: BUILDER_MIRRORS is ignored."""
    monkeypatch.setenv("BUILDER_MIRRORS", "nonsense")
    assert "'nonsense' is not a mirror" in refusal(builder("plan"))


def test_python_outside_the_lock(project: Path) -> None:
    """Broken: a cell that the lock does not cover is reported only after requests to registries."""
    (project / "matrix.toml").write_text(changed('["3.12"]', '["3.12", "3.9"]'), encoding="utf-8")
    said = refusal(builder("build"))
    assert "pylock.toml does not cover the cell 3.9-slim: Python 3.9 is outside requires-python '>=3.10'" in said


def test_package_without_a_file_for_a_cell(project: Path) -> None:
    """Broken: a package without a file for a cell is reported only after requests to registries."""
    locks.write(project, locks.package("fast", "1.0", "cp312-cp312-win_amd64"))
    assert "does not cover the cell 3.12-slim: no wheel found" in refusal(builder("plan"))


def test_unknown_group(project: Path) -> None:
    """Broken: a group that is not in the lock is ignored."""
    (project / "matrix.toml").write_text(EXAMPLE, encoding="utf-8")
    assert "pylock.toml has no group 'dev'" in refusal(builder("plan"))


@pytest.mark.parametrize("repository", ["Acme/CI", "acme/ci:1", "https://registry.example.com/ci", "acme/$(id)"])
def test_repository_that_is_none(project: Path, repository: str) -> None:
    """Broken: images get names that registries reject."""
    (project / "matrix.toml").write_text(f"repository = '{repository}'\n{SMALL}", encoding="utf-8")
    assert "repository: " in refusal(builder("plan"))


def test_repository_of_the_environment_that_is_none(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: an invalid CI_REGISTRY_IMAGE is reported only after requests to registries."""
    monkeypatch.setenv("CI_REGISTRY_IMAGE", "https://registry.example.com/acme")
    assert "'https://registry.example.com/acme/ci' is not an image reference" in refusal(builder("plan"))


@pytest.mark.parametrize("pyproject", [b"[project\n", b"project = 3\n", b"[project]\nname = 3\n", b"\xff"])
def test_project_without_a_name_to_go_by(project: Path, pyproject: bytes) -> None:
    """Broken: an invalid pyproject.toml next to a lock causes a traceback."""
    (project / "uv.toml").touch()
    (project / "pyproject.toml").write_bytes(pyproject)
    assert "pyproject.toml" in refusal(builder("plan"))


@pytest.mark.parametrize(
    ("command", "variable"), [("build", "SSL_CERT_FILE"), ("build", "NETRC"), ("plan", "SSL_CERT_FILE")]
)
def test_secret_that_is_not_there(project: Path, monkeypatch: pytest.MonkeyPatch, command: str, variable: str) -> None:
    """Broken: a wrong SSL_CERT_FILE or NETRC causes a traceback, or is reported only after a long build."""
    monkeypatch.setenv(variable, "missing.pem")
    assert f"{variable} names missing.pem, which cannot be read" in refusal(builder(command))


def test_errors_are_short_and_without_secrets(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: the error for a wrong option prints a password."""
    monkeypatch.setenv("CI_JOB_TOKEN", "Tr0ub4dor")
    said = refusal(builder("plan", "--mirror", "https://jane:hunter2@mirror.invalid", "--mirror", "Tr0ub4dor"))
    assert "hunter2" not in said
    assert "Tr0ub4dor" not in said
    assert len(said.splitlines()) <= 3
