"""The YAML in docs/gitlab.md, copied as it stands there, read by gitlab-ci-local."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.gitlab import run_pipeline, runs_pipelines

pytestmark = [pytest.mark.integration, runs_pipelines]

HERE = Path(__file__).parents[2]
TEXT = (HERE / "docs/gitlab.md").read_text(encoding="utf-8")
TUTORIAL, ONE_FILE, *OTHERS = (
    block
    for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    if not block.startswith((".prebuilt-job", "prebuilt-tests"))
)
(TESTS,) = re.findall(r"```yaml\n(prebuilt-tests:.*?)```", TEXT, re.DOTALL)
INPUTS = re.findall(
    r"^\| `(\w+)`(?:, `(\w+)`)? \|", TEXT.partition("### Inputs")[2].partition("## When")[0], re.MULTILINE
)
JOB = "\ntest:\n  image: python:3.13-slim-bookworm\n  stage: test\n  script:\n    - echo tested\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the files that the tutorial writes, and a copy of the component."""
    folder = tmp_path / "shop"
    (folder / ".gitlab").mkdir(parents=True)
    shutil.copy(HERE / "templates/prebuilt.yml", folder / ".gitlab/prebuilt.yml")
    (folder / "uv.lock").write_text("", encoding="utf-8")
    (matrix,) = re.findall(r"\*\*1\. Define.*?```toml\n(.*?)```", TEXT, re.DOTALL)
    (folder / "matrix.toml").write_text(matrix, encoding="utf-8")
    return folder


@pytest.fixture
def builder_project(tmp_path: Path) -> Path:
    """The project of builder itself, with the release that the tutorial names."""
    folder = tmp_path / "builder"
    shutil.copytree(HERE / "templates", folder / "templates")
    git = ["git", "-C", str(folder), "-c", "user.name=Acme", "-c", "user.email=acme@example.com"]
    (version,) = re.findall(r"prebuilt@(\S+)", TUTORIAL)
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "Made"], ["tag", version]):
        subprocess.run([*git, *command], check=True)
    return folder


def listed(folder: Path, text: str, builder_project: Path) -> Iterator[str]:
    """The names of the jobs that gitlab-ci-local sees in the text; it validates by GitLab's schema."""
    (folder / ".gitlab-ci.yml").write_text(text, encoding="utf-8")
    ran = run_pipeline(
        folder, variables={"CI_PIPELINE_SOURCE": "schedule", "CI_COMMIT_BRANCH": "main", "CI_DEFAULT_BRANCH": "main"},
        projects={"acme/builder": builder_project}, options=["--list"],
    )  # fmt: skip
    assert ran.exit_code == 0, ran.text
    for line in ran.text.splitlines():
        if match := re.match(r"(\S+) +(?:.*) +(?:build|test|\.pre) ", line):
            yield match[1]


def test_tutorial(project: Path, builder_project: Path) -> None:
    """Broken: the tutorial's files, copied literally, are not a valid pipeline."""
    assert {"prebuilt", "prebuilt-by-hand", "lint"} <= set(listed(project, TUTORIAL, builder_project))


def test_one_file(project: Path, builder_project: Path) -> None:
    """Broken: the include of a copy, copied literally, is not a valid pipeline."""
    assert {"prebuilt", "test"} <= set(listed(project, ONE_FILE + JOB, builder_project))


def test_tests_of_a_child_pipeline(project: Path, builder_project: Path) -> None:
    """Broken: the job that repeats the tests of a child pipeline, copied literally, is not valid."""
    text = TUTORIAL.replace("workflow:", "      parallel: true\nworkflow:", 1)
    assert "prebuilt-tests" in set(listed(project, f"{text}\n{TESTS}", builder_project))


@pytest.mark.parametrize(
    "lines",
    [
        ["stage: .pre"], ["engine: docker-in-docker"], ["engine: docker-in-docker", 'services: ["docker:28-dind"]'],
        ["engine: own"], ["before_script: [docker version]"], ["options: --jobs 4"],
        ["parallel: true"], ["prune: true"],
        ["matrix: matrix.toml", "lock: requirements.txt"],
        ["changes: [requirements/*.txt]"], *(block.splitlines() for block in OTHERS[:2]),
    ],
    ids=lambda lines: lines[0].partition(":")[0],
)  # fmt: skip
def test_inputs(lines: list[str], project: Path, builder_project: Path) -> None:
    """Broken: an input that the documentation describes makes the pipeline invalid."""
    text = TUTORIAL.replace("workflow:", "".join(f"      {line}\n" for line in lines) + "workflow:", 1)
    names = {name for pair in INPUTS for name in pair if name}
    assert {line.partition(":")[0] for line in lines} <= names
    assert "lint" in set(listed(project, text, builder_project))
