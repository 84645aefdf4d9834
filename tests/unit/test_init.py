"""`builder init`: what it writes for a project, what it says, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tomli
import yaml

from builder.lock.model import Lock
from builder.matrix.file import parse_matrix
from builder.start.survey import survey
from builder.start.text import matrix_text
from tests import locks
from tests.commandline import Ended, builder

PROJECT = """\
[project]
name = "shop"
version = "1"
requires-python = ">=3.10"

[project.optional-dependencies]
fast = ["orjson"]

[dependency-groups]
dev = ["ruff"]
test = ["pytest"]
docs = ["mkdocs"]
"""
WORKFLOW = """\
jobs:
  test:
    strategy:
      matrix:
        python-version: [3.9, 3.10, "3.12"]
    steps:
      - uses: actions/setup-python@v5
        with: {python-version: "${{ matrix.python-version }}"}
      - run: |
          sudo apt-get update
          sudo apt-get install -y git
      - run: uv sync --group test --extra fast
"""


def init(folder: Path, monkeypatch: pytest.MonkeyPatch, files: Mapping[str, str], *arguments: str) -> Ended:
    """Run `builder init` in a folder with these files and a lock."""
    (folder / "home").mkdir(exist_ok=True)
    monkeypatch.setenv("BUILDER_CACHE_DIR", str(folder / "home"))
    monkeypatch.chdir(folder)
    locks.write(folder, locks.pure("six"))
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return builder("init", *arguments)


def written(folder: Path) -> dict[str, Any]:
    """The matrix that was written, which must be valid."""
    text = (folder / "matrix.toml").read_text(encoding="utf-8")
    parse_matrix(text, source="matrix.toml")
    return tomli.loads(text)


def test_project_without_anything_gets_matrix_and_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a newcomer's first command leaves no matrix, no pipeline, no reasons, or no next command."""
    ended = init(tmp_path, monkeypatch, {".python-version": "3.12\n"})
    assert ended.stdout.split() == ["matrix.toml", ".gitlab-ci.yml", ".gitlab/prebuilt.yml"]
    assert (written(tmp_path)["python"], written(tmp_path)["base"]) == (["3.12"], ["bookworm-slim"])
    assert "builder: Python 3.12: .python-version names it\n" in ended.stderr
    assert ended.stderr.endswith("next: builder plan\n")
    pipeline = yaml.safe_load((tmp_path / ".gitlab-ci.yml").read_text(encoding="utf-8"))
    assert pipeline["test"]["image"] == "$CI_REGISTRY_IMAGE/ci:3.12-bookworm-slim$PREBUILT"
    assert pipeline["include"][0]["inputs"]["lock"] == "pylock.toml"


def test_nothing_that_exists_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a matrix or a pipeline that somebody wrote is overwritten, or half of the files are."""
    text = "test:\n  image: python:3.12-alpine\n  script: [pip install -r requirements.txt, pytest]\n"
    ended = init(tmp_path, monkeypatch, {".gitlab-ci.yml": text})
    assert (tmp_path / ".gitlab-ci.yml").read_text(encoding="utf-8") == text
    assert ".gitlab-ci.yml stays as it is. `builder ci adopt | git apply` adds these lines" in ended.stderr
    assert "- local: .gitlab/prebuilt.yml" in ended.stderr
    assert (written(tmp_path)["python"], written(tmp_path)["base"]) == (["3.12"], ["alpine"])
    (tmp_path / "matrix.toml").write_text("# mine\n", encoding="utf-8")
    again = init(tmp_path, monkeypatch, {})
    assert (again.exit_code, again.stdout) == (2, "")
    assert "this project has a matrix: matrix.toml\n  `builder plan` shows what it makes; --force" in again.stderr
    assert (tmp_path / "matrix.toml").read_text(encoding="utf-8") == "# mine\n"


def test_adopting_goes_on_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: after `builder init`, jobs move to images that no job of the pipeline builds."""
    text = "test:\n  image: python:3.12-alpine\n  rules: [{if: $CI_PIPELINE_SOURCE == 'merge_request_event'}]\n"
    init(tmp_path, monkeypatch, {".gitlab-ci.yml": f"{text}  script: [pip install -r requirements.txt, pytest]\n"})
    added = [line for line in builder("ci", "adopt").stdout.splitlines() if line.startswith("+")]
    assert "+  - local: .gitlab/prebuilt.yml" in added
    assert "+  image: $CI_REGISTRY_IMAGE/ci:3.12-alpine$PREBUILT" in added
    assert not any("matrix.toml" in line for line in added)
    named = builder("ci", "adopt", "--component", "gitlab.example.com/acme/builder/prebuilt@1.0.0").stdout
    assert "+  - component: gitlab.example.com/acme/builder/prebuilt@1.0.0" in named.splitlines()


def test_force_adds_the_include(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: --force does not include the component, or loses what was in the pipeline."""
    text = "# ours\ntest:\n  image: python:3.12-alpine\n  script: [pip install -r requirements.txt, pytest]\n"
    ended = init(
        tmp_path, monkeypatch, {".gitlab-ci.yml": text, "matrix.toml": "# mine\n"}, "--force", "--component",
        "gitlab.example.com/acme/builder/prebuilt@1.0.0",
    )  # fmt: skip
    assert ended.exit_code == 0, ended.stderr
    new = (tmp_path / ".gitlab-ci.yml").read_text(encoding="utf-8")
    assert "- component: gitlab.example.com/acme/builder/prebuilt@1.0.0" in new
    assert set(text.splitlines()) <= set(new.splitlines())
    assert not (tmp_path / ".gitlab").exists()
    assert written(tmp_path)["base"] == ["alpine"]


def test_workflows_name_pythons_and_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a project on GitHub gets other Pythons than it tests on (3.10 as 3.1), or GitLab's files."""
    ended = init(tmp_path, monkeypatch, {"pyproject.toml": PROJECT, ".github/workflows/ci.yml": WORKFLOW})
    assert ended.stdout == "matrix.toml\n"
    matrix = written(tmp_path)
    assert (matrix["python"], matrix["bases"]["bookworm-slim"]["packages"]) == (["3.10", "3.12"], ["git"])
    assert "ci.yml also names Python 3.9, which this project excludes" in ended.stderr
    assert "system packages git: what .github/workflows/ci.yml installs" in ended.stderr


def test_dockerfile_names_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: the base, Python or system packages of the project's own Dockerfile are ignored."""
    text = "ARG PY=3.11\nFROM python:${PY}-slim-trixie AS app\nRUN apt-get update && \\\n  apt-get install -y make\n"
    init(tmp_path, monkeypatch, {"Dockerfile": text})
    matrix = written(tmp_path)
    assert (matrix["python"], matrix["base"]) == (["3.11"], ["trixie-slim"])
    assert matrix["bases"]["trixie-slim"]["packages"] == ["make"]


def test_jobs_beside_those_of_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a job that only publishes gets a cell, or a tool that a job runs by uvx is not in the images."""
    text = "test:\n  image: python:3.12-slim\n  script: [uv sync, uvx ruff check]\n"
    text += "publish:\n  image: python:latest\n  script: [pip install twine, twine upload dist/*]\n"
    ended = init(tmp_path, monkeypatch, {".gitlab-ci.yml": text})
    matrix = written(tmp_path)
    assert (matrix["python"], matrix["tools"]) == (["3.12"], ["ruff"])
    assert "tools ruff: jobs run them by uvx" in ended.stderr


def test_groups_that_jobs_install(tmp_path: Path) -> None:
    """Broken: images lack the groups and extras that jobs install, or have all of them."""
    (tmp_path / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (tmp_path / ".github/workflows").mkdir(parents=True)
    (tmp_path / ".github/workflows/ci.yml").write_text(WORKFLOW, encoding="utf-8")
    plain = locks.read(tmp_path, locks.pure("six"))
    lock = Lock(path=plain.path, kind="uv.lock", pylock=plain.pylock, extras=(), groups=())
    text = matrix_text(survey(tmp_path, None, lock))
    assert tomli.loads(text)["install"] == {"groups": ["test"], "extras": ["fast"]}
    assert "# Jobs install them. No job installs docs.\n" in text


def test_project_without_a_lock_gets_the_command_that_writes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken: without a lock there is a traceback, or the next command fails."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    ended = builder("init")
    assert "lock: uv.lock, which `uv lock` writes" in ended.stderr
    assert ended.stderr.endswith("next: uv lock && builder plan\n")
    assert written(tmp_path)["python"] == ["3.14"]


@pytest.mark.parametrize("text", ["jobs: [", "jobs: {a: {steps: [x]}}", "- 1", "jobs: {a: {strategy: {matrix: x}}}"])
def test_odd_workflow_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Broken: a workflow that is no YAML, or of another shape, ends in a traceback."""
    ended = init(tmp_path, monkeypatch, {".github/workflows/ci.yml": text, ".gitlab-ci.yml": "a: ["})
    assert ended.exit_code == 0, ended.stderr
    assert "so .gitlab-ci.yml decides nothing" in ended.stderr
