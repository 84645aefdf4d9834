"""`builder ci adopt`: a full image becomes a slim one only if the jobs find everything that they run."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.gitlab.adopt.program import uses_below
from tests.adopting import changed_lines, run_adopt_files
from tests.gitlab import MATRIX

MAIN = ".gitlab-ci.yml"
WITH_GIT = MATRIX.replace('family = "debian"', 'family = "debian"\npackages = ["git=1:2.39", "make"]')


def job(*lines: str, image: str = "python:3.12") -> str:
    """A file with one job and these lines."""
    return f"test:\n  image: {image}\n  script:\n" + "".join(f"    - {line}\n" for line in (*lines, "pytest"))


@pytest.mark.parametrize(
    ("line", "package"),
    [
        ("git fetch --tags", "git"),
        ("sudo env A=b git describe", "git"),
        ("A=1 B='x y' make test", "make"),
        ("if curl -fs https://api.example; then true; fi", "curl"),
        ("eval $(ssh-agent -s)", "openssh-client"),
        ('eval "$(ssh-agent -s)"', "openssh-client"),
        ("echo $KEY | tr -d x | ssh-add -", "openssh-client"),
        ("gcc -shared x.c", "gcc"),
        ("pre-commit run --all-files", "git"),
        ("uv run pre-commit run", "git"),
        ("python -m pre_commit run", "git"),
        ("pip install git+https://git.example/x.git", "git"),
        ("bash -c 'git status'", "git"),
        ("|\n      if true; then\n        wget https://x.example\n      fi", "wget"),
    ],
)
def test_job_that_runs_what_a_slim_image_lacks(
    line: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken: a job moves to a slim image that lacks a program it runs, or the remark does not name it."""
    ended = run_adopt_files(tmp_path, monkeypatch, {MAIN: job(line)})
    assert ended.stdout == ""
    assert f"needs {package}, which 3.12-bookworm-slim lacks; " in ended.stderr
    assert f'add "{package}" to packages of bases.bookworm-slim in matrix.toml' in ended.stderr


@pytest.mark.parametrize(
    "line",
    [
        "git fetch", "make -k test", "apt-get update && apt-get install -y curl && curl https://x.example",
        "echo 'then curl; make it'", "pip install gitpython", "python make.py", "cat gcc", "# git log",
    ],
)  # fmt: skip
def test_job_that_a_slim_cell_serves(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a job keeps its full image although the cell, or the job itself, installs what it runs."""
    ended = run_adopt_files(tmp_path, monkeypatch, {MAIN: job(f"'{line}'" if "#" in line else line)}, matrix=WITH_GIT)
    assert "+  image: $CI_REGISTRY_IMAGE/ci:3.12-bookworm-slim\n" in changed_lines(ended.stdout)[MAIN]


def test_slim_image_needs_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a job on a slim image keeps it because of a program that was never there."""
    ended = run_adopt_files(tmp_path, monkeypatch, {MAIN: job("make || true", image="python:3.12-slim")})
    assert "+  image:" in ended.stdout


def test_programs_of_a_makefile_and_of_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: what `make` targets and the project's own scripts run is not read."""
    files = {
        "Makefile": "all: lint test\n\n.PHONY: test\ntest: dist \\\n  fixtures\n\t@pytest\nlint:\n\t-hg id\n"
        "fixtures:\n\t$(MAKE) -C data\ndist: ; @true\n",
        "data/Makefile": "first:\n\tcurl -O https://data.example/x\nsecond:\n\twget y\n",
        "ci/run.sh": "#!/bin/sh\nset -e\n. ci/more\n",
        "ci/more": "#!/usr/bin/env bash\nsvn info\n",
    }
    ended = run_adopt_files(tmp_path, monkeypatch, {**files, MAIN: job("make test", "./ci/run.sh")})
    assert "`make test` needs make" in ended.stderr
    assert "`make test` needs curl" in ended.stderr
    assert "`./ci/run.sh` needs subversion" in ended.stderr
    assert "wget" not in ended.stderr
    assert "mercurial" not in ended.stderr


@pytest.mark.parametrize(
    ("file", "text", "package"),
    [
        ("pyproject.toml", '[build-system]\nrequires = ["hatchling", "hatch-vcs"]\n', "git"),
        ("setup.py", "setup(ext_modules=[Extension('a', ['a.c'])])", "g++"),
    ],
)
def test_project_that_needs_more_to_be_installed(
    file: str, text: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken: `pip install -e .` fails on a slim image because the build asks git, or compiles."""
    files = {MAIN: job("pip install -e .[dev]"), file: text}
    assert f"needs {package}, which" in run_adopt_files(tmp_path, monkeypatch, files).stderr
    assert "+  image" in run_adopt_files(tmp_path, monkeypatch, {MAIN: job("pip install ./other")}).stdout


def test_recursive_make_and_scripts(tmp_path: Path) -> None:
    """Broken: targets or scripts that call each other are read without end, or files from outside are."""
    (tmp_path / "Makefile").write_text("a: b\n\tmake b\nb: a\n\tsh x.sh\n\t../evil.sh\n", encoding="utf-8")
    (tmp_path / "x.sh").write_text("sh x.sh\nmake a\n", encoding="utf-8")
    (tmp_path.parent / "evil.sh").write_text("#!/bin/sh\nhg\n", encoding="utf-8")
    assert {use.program for use in uses_below("make a", tmp_path)} == {"make", "sh", "evil.sh"}
