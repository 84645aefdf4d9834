"""Messages about mistakes: each names what is wrong and what to do, and never proposes what deletes."""

from __future__ import annotations

import ast
import errno
import re
from pathlib import Path, PurePosixPath

import pytest
import requests

import builder as package
from builder.cli.output.text import are_up_to_date
from builder.contract import CELL_LABEL
from builder.disk import failure_text, full_disk
from builder.errors import MatrixError, counted
from builder.http import failure_reason
from builder.image.build import check_log_folder
from builder.image.build_log import BuildLog
from builder.matrix.file import parse_matrix
from builder.oci.manifest import ConfigSection
from builder.oci.reference import ImageRef, has_registry
from builder.oci.target import Target
from builder.verify.checkout import Checkout
from builder.verify.inside import Facts
from builder.verify.moved import lock_changes
from builder.verify.vouch import Vouched
from tests import locks
from tests.commandline import builder
from tests.matrices import SMALL, changed


def refusal(text: str) -> str:
    """The error for a matrix."""
    with pytest.raises(MatrixError) as raised:
        parse_matrix(text, source="matrix.toml")
    return str(raised.value)


def test_list_of_bases_in_the_wrong_place() -> None:
    """Broken: who writes `bases = […]` gets a TOML parser's words, and not the key that the list belongs in."""
    advice = "the list of names goes in `base`"
    assert advice in refusal(changed('base = ["slim"]', 'bases = ["slim"]'))
    assert f"bases: {advice}" in refusal('python = ["3.12"]\nbase = ["slim"]\nbases = ["slim"]\n')


@pytest.mark.parametrize(("number", "text"), [("3.11", "3.11"), ("3.10", "3.10"), ("3", "3")])
def test_python_as_a_number(number: str, text: str) -> None:
    """Broken: a Python without quotes is called an invalid string, or 3.10 becomes 3.1 in the advice."""
    assert f'python.0: write "{text}", in quotes; ' in refusal(changed('["3.12"]', f"[{number}]"))


def test_misspelled_release() -> None:
    """Broken: a base whose tag does not exist is asked for its libc, which nobody can answer."""
    said = refusal(changed("slim-bookworm", "slim-bookwrom"))
    assert (
        "bases.slim.image: 'python:{python}-slim-bookwrom' is no tag of a known release; did you mean 'bookworm'?"
        in said
    )
    assert "libc" not in said
    assert "bases.slim.libc: missing" in refusal(changed("slim-bookworm", "custom"))


def test_dead_proxy_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: the message about a dead proxy does not say which variable names it, or shows its password."""
    monkeypatch.setenv("HTTPS_PROXY", "http://user:pass@proxy.example:3128")
    request = requests.Request("GET", "https://registry.example/v2/").prepare()
    inner = "('Unable to connect to proxy', NewConnectionError('...: [Errno 111] Connection refused'))"
    said = failure_reason(requests.exceptions.ProxyError(inner, request=request))
    assert said == "the proxy of HTTPS_PROXY (proxy.example:3128) does not answer: [Errno 111] Connection refused"


def test_mirror_that_does_not_answer() -> None:
    """Broken: who copied a mirror from an example is told to name another mirror."""
    ref = ImageRef.from_str("python:3.12")
    advice = Target(ref=ImageRef.from_str("mirror.example/library/python:3.12"), original=ref).advice
    assert "mirror.example is a mirror of docker.io by [mirrors] in the matrix, --mirror or BUILDER_MIRRORS" in advice
    assert "names another registry" in Target(ref=ref, original=ref).advice


def test_full_disk_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: "no space left" does not say on which disk, of four that builder writes to."""
    monkeypatch.setenv("BUILDER_CACHE_DIR", str(tmp_path))
    named = failure_text(OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "blob")))
    assert named.startswith(f"{tmp_path / 'blob'}: No space left on device; ")
    everything = 1 << 70
    assert f"{tmp_path} has " in full_disk(everything)
    assert "BUILDER_CACHE_DIR names another folder" in full_disk(everything)
    assert failure_text(OSError(errno.EACCES, "Permission denied", "/x")) == "/x: Permission denied"


def test_log_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a log folder that cannot be written fails each cell on its own, minutes later."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(package.errors.UsageError, match="cannot write logs to file/logs") as raised:
        check_log_folder(Path("file/logs"))
    assert (raised.value.hint or "").startswith("name another folder with --log-dir")


def test_excerpts_have_no_noise(tmp_path: Path) -> None:
    """Broken: the few lines of a failure are filled with warnings that say nothing about it."""
    with (tmp_path / "log").open("w", encoding="utf-8") as file:
        log = BuildLog(file=file, packages=1, on_step=lambda _: None)
        log._read_line("d", "builder: cache the build systems")
        for line in (
            "warning: The `extra-build-dependencies` option is experimental and may change without warning.",
            "warning: Requirements file `/run/constraints.txt` does not contain any dependencies",
            "warning: a package was yanked",
            "error: no such backend",
        ):
            log._read_line("d", line)
        log.failed.append(("d", "exit code: 1"))
    said = log.failure_text()
    assert "experimental" not in said
    assert "constraints" not in said
    assert said.endswith("warning: a package was yanked\n    error: no such backend")
    assert "experimental" in (tmp_path / "log").read_text(encoding="utf-8")
    assert "requires of [build-system] in the project's pyproject.toml" in log.advice


def test_lock_that_moved_since_the_image(tmp_path: Path) -> None:
    """Broken: `verify` reports five broken promises where the lock is simply newer than the image."""
    lock = locks.read(tmp_path, locks.pure("six", "1.17"), locks.pure("pluggy"))
    facts = Facts(
        image="ci:x", id="sha256:0", config=ConfigSection(Labels={CELL_LABEL: "3.12-slim"}),
        checkout=Checkout(top=tmp_path, workdir=PurePosixPath(), lock=lock),
        vouched=Vouched(packages={"six": "1.16", "attrs": "1.0"}),
    )  # fmt: skip
    matrix = parse_matrix(SMALL, source="matrix.toml")
    assert lock_changes(facts, matrix) == (
        "package attrs: removed 1.0", "package pluggy: added 1.0", "package six: 1.16 → 1.17"
    )  # fmt: skip
    assert lock_changes(facts, None) == ()  # the built-in matrix has no such base


@pytest.mark.parametrize(("text", "expected"), [("ci:3.12", False), ("acme/ci", False), ("r.example/ci:1", True)])
def test_registry_in_a_name(text: str, expected: bool) -> None:
    """Broken: `diff` asks Docker Hub for an image of this machine, or the engine for one of a registry."""
    assert has_registry(text) is expected


def test_plurals() -> None:
    """Broken: "1 cells are up to date"."""
    assert [counted(number, "cell") for number in (0, 1, 2000)] == ["0 cells", "1 cell", "2,000 cells"]
    assert (are_up_to_date(1), are_up_to_date(3)) == ("1 cell is up to date", "3 cells are up to date")


def test_no_message_proposes_what_deletes() -> None:
    """Broken: a hint tells somebody under pressure to run a command that deletes what others need."""
    deleting = re.compile(r"(docker (system|image|volume|builder) prune|builder prune|\brm -r|docker rmi)")
    told = [
        (path.name, node.value)
        for path in sorted(Path(package.__file__).parent.rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.keyword) and call.arg == "hint"
        for node in ast.walk(call.value)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert len(told) > 100
    assert [text for name, text in told if deleting.search(text) and name != "ci.py"] == []


def test_diff_of_nothing_fails_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: without a repository, `diff` asks the registry of the base image before it says what is missing."""
    monkeypatch.chdir(tmp_path)
    locks.write(tmp_path, locks.pure("six"))
    (tmp_path / "matrix.toml").write_text(SMALL, encoding="utf-8")
    monkeypatch.setenv("DOCKER_HOST", "tcp://nobody:pw@")
    ended = builder("diff", "3.12-slim")
    assert ended.exit_code in {2, 3}
    assert "engine" in ended.stderr


def test_tables_with_the_name_of_the_list() -> None:
    """Broken: who writes [base.slim] reads of something that is declared twice."""
    said = refusal(changed("[bases.slim]", "[base.slim]"))
    assert said.endswith("cannot be a table too\n  write [bases.slim] instead of [base.slim]")


def test_python_twice_is_one_mistake() -> None:
    """Broken: a Python that is listed twice is also called a profile that must be renamed."""
    assert refusal(changed('["3.12"]', '["3.12", "3.12"]')) == (
        "matrix.toml:\n  python: '3.12' is listed 2 times; list it once"
    )


def test_merge_conflicts_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a file with git's conflict markers is called invalid TOML, by uv or by builder."""
    conflict = f"{SMALL}<<<<<<< HEAD\nuv = '1'\n=======\n>>>>>>> other\n"
    said = refusal(conflict)
    assert said.endswith(f":{len(SMALL.splitlines()) + 1}: an unresolved merge conflict\n  choose one side")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "uv.lock").write_text("version = 1\n<<<<<<< HEAD\n", encoding="utf-8")
    ended = builder("plan")
    assert ended.exit_code == 2
    assert "uv.lock:2: an unresolved merge conflict\n  take the file of one side, then run `uv lock`" in ended.stderr


def test_mirror_says_where_it_is_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a mistake in a variable that somebody else has set looks like one in the command line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "matrix.toml").write_text(SMALL, encoding="utf-8")
    locks.read(tmp_path, locks.pure("six"))
    assert "--mirror: 'localhost:5000' is not a mirror" in builder("plan", "--mirror", "localhost:5000").stderr
    monkeypatch.setenv("BUILDER_MIRRORS", "nexus.example.com")
    assert "BUILDER_MIRRORS: 'nexus.example.com' is not a mirror" in builder("plan").stderr
    monkeypatch.delenv("BUILDER_MIRRORS")
    monkeypatch.setenv("BUILDER_MAKER", "podman")
    assert "'BUILDER_MAKER'): 'podman' is not one of 'auto'" in builder("build").stderr


def test_credentials_are_not_repeated() -> None:
    """Broken: who writes a token where a table belongs reads it in the job's log."""
    said = refusal(f"{SMALL}[credentials]\n'gitlab.example.com' = 'glpat-secret'\n")
    assert "glpat-secret" not in said
    assert 'write { username = "NAME", password = "VARIABLE" }' in said


def test_lock_of_a_profile_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: who misspells a profile's lock is told to name it with --lock."""
    monkeypatch.chdir(tmp_path)
    locks.read(tmp_path, locks.pure("six"))
    (tmp_path / "matrix.toml").write_text(f"{SMALL}[profiles.lint]\nlock = 'tools/uv.lock'\n", encoding="utf-8")
    ended = builder("plan")
    assert ended.exit_code == 2
    assert "profiles.lint.lock: there is no " in ended.stderr
    assert "tools/uv.lock\n  its path is relative to the matrix" in ended.stderr


def test_excerpts_have_no_frames_of_tracebacks(tmp_path: Path) -> None:
    """Broken: the few lines of a failure are the frames of a traceback, without what was printed before it."""
    with (tmp_path / "log").open("w", encoding="utf-8") as file:
        log = BuildLog(file=file, packages=1, on_step=lambda _: None)
        log._read_line("d", "builder: compile the standard library")
        frames = ['  File "/a.py", line 1, in f', "    write(x)", "    ~~~~~^^^"]
        lines = ["before", "Traceback (most recent call last):", *frames, "OSError: [Errno 28] No space", "after"]
        for line in [*lines, *(f"      {line}" for line in lines)]:  # uv indents those of build systems
            log._read_line("d", line)
        log.failed.append(("d", "exit code: 1"))
    said = log.failure_text().splitlines()
    assert [line.strip() for line in said[1:]] == ["before", "OSError: [Errno 28] No space", "after"] * 2
    assert "in f" in (tmp_path / "log").read_text(encoding="utf-8")
