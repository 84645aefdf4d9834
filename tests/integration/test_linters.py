"""Linters find nothing in golden files and scripts, except for findings with a reason next to them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

_ROOT = Path(__file__).parents[2]
_GOLDEN = _ROOT / "tests" / "golden"
_DOCKERFILES = [*sorted(_GOLDEN.glob("*/Dockerfile")), _ROOT / "Dockerfile"]
# All but the Python one, which ruff and mypy read.
_SHELL_SCRIPTS = sorted(path for path in (_ROOT / ".ci").iterdir() if b"python" not in path.read_bytes()[:40])
_HADOLINT = Path(sys.executable).with_name("hadolint")
_SHELLCHECK = Path(sys.executable).with_name("shellcheck")


@pytest.mark.parametrize("dockerfile", _DOCKERFILES, ids=lambda path: path.parent.name)
def test_dockerfile_passes(dockerfile: Path, tmp_path: Path) -> None:
    """Broken: a Dockerfile is invalid, or violates good practice."""
    argv: list[str | Path] = [_HADOLINT, "--no-color", "--failure-threshold", "style", dockerfile]
    done = subprocess.run(argv, cwd=tmp_path, env={"HOME": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("dockerfile", _DOCKERFILES, ids=lambda path: path.parent.name)
def test_exceptions_have_a_reason(dockerfile: Path) -> None:
    """Broken: a finding of hadolint is ignored without a reason."""
    text = dockerfile.read_text(encoding="utf-8")
    exceptions = re.findall(r"^# hadolint.*$", text, re.MULTILINE)
    assert len(exceptions) <= 1
    assert not exceptions or re.search(r"^# [^\n]{40,}\n# hadolint ignore=DL\d{4}$", text, re.MULTILINE)


@pytest.mark.parametrize("script", sorted(_GOLDEN.glob("*/prebuilt-status")), ids=lambda path: path.parent.name)
def test_status_script_passes(script: Path) -> None:
    """Broken: the script that jobs run needs more than a POSIX shell, which Alpine lacks."""
    argv: list[str | Path] = [_SHELLCHECK, "--shell", "sh", "--norc", script]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("script", _SHELL_SCRIPTS, ids=lambda path: path.name)
def test_script_of_the_pipeline_passes(script: Path) -> None:
    """Broken: a script of this project's own jobs has a mistake that shellcheck finds."""
    done = subprocess.run([_SHELLCHECK, "--norc", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_pipeline_is_what_gitlab_reads() -> None:
    """Broken: this project's pipeline does not match GitLab's schema."""
    program = Path(sys.executable).with_name("check-jsonschema")
    argv: list[str | Path] = [program, "--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"]
    done = subprocess.run([*argv, _ROOT / ".gitlab-ci.yml"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_golden_dockerfiles() -> None:
    """Broken: the tests above check no file."""
    assert len(list(_GOLDEN.glob("*/Dockerfile"))) >= 3


@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ("github-actions", ["action.yml"]),
        ("github-workflows", ["examples/github/images.yml", "examples/github/test.yml"]),
        ("renovate", ["examples/updates/renovate.json"]),
        ("dependabot", ["examples/updates/dependabot.yml"]),
    ],
)
def test_files_for_others_match_their_schemas(schema: str, paths: list[str]) -> None:
    """Broken: GitHub, Renovate or Dependabot rejects what somebody copied from the examples."""
    program = Path(sys.executable).with_name("check-jsonschema")
    argv: list[str | Path] = [program, "--builtin-schema", f"vendor.{schema}", *(_ROOT / path for path in paths)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_scripts_of_the_action_pass() -> None:
    """Broken: a script of the GitHub action has a mistake that shellcheck finds."""
    action = yaml.safe_load((_ROOT / "action.yml").read_text(encoding="utf-8"))
    for step in action["runs"]["steps"]:
        argv = [_SHELLCHECK, "--norc", "--shell", step["shell"], "-"]
        done = subprocess.run(argv, input=step["run"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
