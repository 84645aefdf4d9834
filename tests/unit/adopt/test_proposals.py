"""`builder ci adopt` without a matrix: what it proposes for the images, the include, and the tags of merge requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import tomli

from tests.adopting import BAKED, added_file, applied, changed_lines, run_adopt_files
from tests.commandline import builder
from tests.gitlab import MATRIX

MAIN = ".gitlab-ci.yml"
COPY = ".gitlab/prebuilt.yml"
UV = {"uv.lock": "version = 1\n"}


def job(image: str, *lines: str, name: str = "test", more: str = "") -> str:
    """A job with these lines."""
    return f"{name}:\n  image: {image}\n{more}  script:\n" + "".join(f"    - {line}\n" for line in (*lines, "pytest"))


def proposed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, files: Mapping[str, str] = UV, *options: str
) -> tuple[dict[str, object], dict[str, str], str]:
    """The matrix that is proposed for a pipeline, the changed lines by file, and the remarks."""
    ended = run_adopt_files(folder, monkeypatch, {**files, MAIN: text}, *options, matrix="")
    assert ended.exit_code == 0, ended.stderr
    return tomli.loads(added_file(ended.stdout, "matrix.toml")), changed_lines(ended.stdout), ended.stderr


def test_matrix_of_a_single_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a newcomer has to write a matrix before anything is shown, or the proposed one has no such cell."""
    matrix, changed, _ = proposed(tmp_path, monkeypatch, job("python:3.12-slim", "uv sync"))
    assert matrix == {
        "python": ["3.12"],
        "base": ["slim"],
        "bases": {"slim": {"image": "docker.io/library/python:{python}-slim", "family": "debian", "libc": "2.36"}},
    }
    assert "+  image: $CI_REGISTRY_IMAGE/ci:3.12-slim\n" in changed[MAIN]


def test_matrix_of_several_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a cell is missing, or cells are proposed that no job runs on, or the versions are not in order."""
    text = job("python:$PY-slim-trixie", more="  parallel: {matrix: [{PY: ['3.9', '3.10']}]}\n")
    text += job("python:3.13-alpine", name="a") + job("python:3.10", name="b") + job("ruby:3.3", name="c")
    matrix, changed, _ = proposed(tmp_path, monkeypatch, text)
    assert (matrix["python"], matrix["base"]) == (["3.9", "3.10", "3.13"], ["trixie-slim", "alpine"])
    assert matrix["exclude"] == [
        {"python": "3.9", "base": "alpine"},
        {"python": "3.10", "base": "alpine"},
        {"python": "3.13", "base": "trixie-slim"},
    ]
    assert "+  image: $CI_REGISTRY_IMAGE/ci:$PY-trixie-slim\n" in changed[MAIN]
    assert "+  image: $CI_REGISTRY_IMAGE/ci:3.10-trixie-slim\n" in changed[MAIN]


def test_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: the proposed slim image lacks a program of the full one, or a package that jobs install."""
    text = job("python:3.12", "make test", "git describe")
    text += job("python:3.12-slim", "apt-get update && apt-get install -qq -y libpq-dev=15", name="b")
    text += job("python:3.12-alpine", "apk add --no-cache --virtual .build gcc musl-dev", name="c")
    text += job("python:3.12-slim", "curl https://x.example | bash -", "apt-get install -y other", name="d")
    matrix, _, _ = proposed(tmp_path, monkeypatch, text)
    bases: dict[str, dict[str, object]] = matrix["bases"]  # type: ignore[assignment]
    assert bases["slim"]["packages"] == ["git", "libpq-dev", "make"]
    assert bases["alpine"]["packages"] == ["gcc", "musl-dev"]


@pytest.mark.parametrize(
    ("files", "python"),
    [
        ({".python-version": "3.11.4\n"}, "3.11"),
        ({"pyproject.toml": '[project]\nrequires-python = ">=3.9,<3.12"\n'}, "3.11"),
        ({}, "3.14"),
    ],
)
def test_python_of_an_open_version(
    files: dict[str, str], python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken: `python:latest` becomes a Python that the project does not support."""
    text = job("python:latest", name="a") + job("python:3.9-slim", name="b")
    _, changed, _ = proposed(tmp_path, monkeypatch, text, {**UV, **files})
    assert f"-  image: python:latest\n+  image: $CI_REGISTRY_IMAGE/ci:{python}-slim\n" in changed[MAIN]


def test_patch_release_and_private_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a pinned patch release is lost, or images are pulled from a registry that the company does not use."""
    matrix, changed, _ = proposed(tmp_path, monkeypatch, job("harbor.example/proxy/python:3.12.4-slim"))
    assert matrix["python"] == ["3.12.4"]
    assert "harbor.example/proxy/python:{python}-slim" in json.dumps(matrix)
    assert "+  image: $CI_REGISTRY_IMAGE/ci:3.12.4-slim\n" in changed[MAIN]


def test_cells_that_no_moved_job_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: images are baked for jobs that were left alone."""
    text = job("python:3.12-slim") + job("python:3.9-slim", "hatch run x", name="b")
    matrix, _, _ = proposed(tmp_path, monkeypatch, text)
    assert matrix["python"] == ["3.12"]


@pytest.mark.parametrize("image", ["ruby:3.3", "python:3.6-slim", "python:3.8-slim-buster"])
def test_nothing_to_propose(image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a matrix or an include is proposed although no job could use it."""
    ended = run_adopt_files(tmp_path, monkeypatch, {MAIN: job(image, "pip install x")}, matrix="")
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert "nothing to change in .gitlab-ci.yml" in ended.stderr


def test_include_of_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository_root: Path) -> None:
    """Broken: without a mirror of builder's repository there is nothing to include, or the copy is another one."""
    ended = run_adopt_files(tmp_path, monkeypatch, {**UV, MAIN: job("python:3.12-slim")}, matrix="")
    template = (repository_root / "templates/prebuilt.yml").read_text(encoding="utf-8")
    assert added_file(ended.stdout, COPY) == template
    assert "+include:\n+  - local: .gitlab/prebuilt.yml\n+    inputs:\n+      image: " in ended.stdout


def test_include_of_a_component(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: the given component is not included, or not with the image of the same version."""
    address = "$CI_SERVER_FQDN/acme/builder/prebuilt@1.2.3"
    _, changed, _ = proposed(tmp_path, monkeypatch, job("python:3.12-slim"), UV, "--component", address)
    assert COPY not in changed
    assert changed[MAIN].startswith(
        f"+include:\n+  - component: {address}\n+    inputs:\n+      image: $CI_REGISTRY/acme/builder/cli:1.2.3\n"
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("include:\n  - template: A.yml\n  # last\n", "+  - local:"),
        ("include:\n- project: acme/x\n  file: y.yml\n", "+- local:"),
        ("# head\n\n# on stages\nstages: [build, test]\n", "+include:"),
        ("---\n", "+include:"),
    ],
)
def test_where_the_include_goes(before: str, after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: the include is not valid YAML where it is put, or parts a comment from its key."""
    text = before + job("python:3.12-slim")
    ended = run_adopt_files(tmp_path, monkeypatch, {**UV, MAIN: text}, matrix="")
    assert after in ended.stdout
    assert "+\n # on stages\n stages" in ended.stdout or "on stages" not in before
    (tmp_path / COPY).parent.mkdir()
    (tmp_path / COPY).write_text(added_file(ended.stdout, COPY), encoding="utf-8")
    again = run_adopt_files(tmp_path, monkeypatch, {MAIN: applied(text, ended.stdout.partition("--- /dev/null")[0])})
    assert (again.exit_code, again.stdout) == (0, "")


def test_include_that_is_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: an include in brackets is broken, or nobody is told to add the component."""
    text = "include: {template: A.yml}\n" + job("python:3.12-slim")
    _, changed, remarks = proposed(tmp_path, monkeypatch, text)
    assert "include" not in changed[MAIN]
    assert "include the component by hand" in remarks


@pytest.mark.parametrize(
    ("stages", "stage", "wanted"),
    [
        ("", "", ""), ("stages: [build, test]\n", "", ""), ("stages: [test, build]\n", "", ".pre"),
        ("stages: [lint, test]\n", "", ".pre"), ("stages: [build, test]\n", "  stage: build\n", ".pre"),
    ],
)  # fmt: skip
def test_stage(stages: str, stage: str, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: the images are built after the jobs that need them, or in a stage that does not exist."""
    _, changed, _ = proposed(tmp_path, monkeypatch, stages + job("python:3.12-slim", more=stage))
    assert ("+      stage: .pre\n" in changed[MAIN]) == bool(wanted)


@pytest.mark.parametrize(
    ("files", "lock", "words"),
    [
        (UV, "", ""),
        ({"requirements.txt": "six==1 --hash=sha256:0\n"}, "requirements.txt", ""),
        ({"requirements.txt": "six\n"}, "requirements-lock.txt", "uv pip compile --generate-hashes"),
        ({"poetry.lock": "", "requirements.txt": "six\n"}, "requirements.txt", "poetry export"),
        ({"pdm.lock": ""}, "pylock.toml", "pdm export"),
        ({"Pipfile.lock": ""}, "requirements.txt", "pipenv requirements"),
        ({"pyproject.toml": ""}, "", "builder needs a lock: `uv lock`"),
        (
            {"a/uv.lock": "", "b/uv.lock": "", ".venv/uv.lock": ""},
            "a/uv.lock",
            "a/uv.lock is baked; a profile of the matrix can have b/uv.lock",
        ),
        ({"uv.lock": "", "requirements-dev.txt": "a --hash=sha256:0\n", "pylock.toml": ""}, "", ""),
    ],
)
def test_lock(files: dict[str, str], lock: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: the component looks for a lock that is not there, or nobody is told how to write one."""
    _, changed, remarks = proposed(tmp_path, monkeypatch, job("python:3.12-slim"), files)
    assert (f"+      lock: {lock}\n" in changed[MAIN]) == bool(lock)
    assert words in remarks
    assert "lock" not in remarks or words


MERGE_REQUESTS = "workflow: {rules: [{if: $CI_PIPELINE_SOURCE == 'merge_request_event'}]}\n"


@pytest.mark.parametrize(
    ("head", "matrix", "suffix"),
    [
        (MERGE_REQUESTS, "", "$PREBUILT"),
        ("include: {template: Workflows/MergeRequest-Pipelines.gitlab-ci.yml}\n", "", "$PREBUILT"),
        ("", "", ""),
        (MERGE_REQUESTS, MATRIX, ""),
        (f"include: [{{component: h.example/acme/builder/prebuilt@1}}]\n{MERGE_REQUESTS}", MATRIX, "$PREBUILT"),
        ("include: [{component: h.example/acme/builder/prebuilt@1}]\n", MATRIX, ""),
        (f"include: {COPY}\n", MATRIX, ""),
        (f"include: {COPY}\n{MERGE_REQUESTS}", MATRIX, "$PREBUILT"),
    ],
)
def test_images_of_merge_requests(
    head: str, matrix: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository_root: Path
) -> None:
    """Broken: a merge request's jobs do not run on its own images, or get a suffix that nothing sets."""
    files = {**UV, MAIN: head + job("python:3.12-alpine")}
    if COPY in head:
        files[COPY] = (repository_root / "templates/prebuilt.yml").read_text(encoding="utf-8")
    ended = run_adopt_files(tmp_path, monkeypatch, files, matrix=matrix)
    assert f"+  image: $CI_REGISTRY_IMAGE/ci:3.12-alpine{suffix}\n" in ended.stdout


def test_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a bot cannot read the diff and the remarks."""
    text = job("python:3.12-alpine") + job("python:3.9", name="old")
    ended = run_adopt_files(
        tmp_path, monkeypatch, {MAIN: text + "other:\n  image: python:3.8\n  script: uv sync\n"}, "--json"
    )
    document = json.loads(ended.stdout)
    (file,) = document["files"]
    assert (file["path"], document["jobs"]) == (MAIN, ["test"])
    assert file["diff"].startswith(f"--- a/{MAIN}\n")
    first = document["remarks"][0]
    assert (first["kind"], first["path"], first["line"], first["job"]) == ("left-alone", MAIN, 6, "old")
    assert ended.stderr == ""


def test_child_pipelines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: nobody learns that jobs of a child pipeline were not read."""
    files = {
        MAIN: f"{BAKED}  script: x\nchild:\n  trigger:\n    include: ci/child.yml\n",
        "ci/child.yml": job("python:3.12-alpine"),
    }
    assert "run `builder ci adopt ci/child.yml` too" in run_adopt_files(tmp_path, monkeypatch, files).stderr
    assert "+  image" in run_adopt_files(tmp_path, monkeypatch, files, "ci/child.yml").stdout


def test_reason_why_nothing_is_proposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: where no job can be moved, the remarks are about a matrix that nobody has seen."""
    ended = run_adopt_files(tmp_path, monkeypatch, {MAIN: job("python:3.12-slim", "hatch run x")}, matrix="")
    assert ended.stdout == ""
    assert "Hatch makes environments of its own" in ended.stderr
    assert "built-in" not in ended.stderr


@pytest.mark.parametrize("line", ["pip install awscli", "pip install mkdocs-material && mkdocs build", "python x.py"])
def test_project_of_another_language(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: images are proposed for a project that has no Python dependencies, and so no lock."""
    text = f"deploy:\n  image: python:3.12-slim\n  script:\n    - {line}\n"
    assert run_adopt_files(tmp_path, monkeypatch, {MAIN: text}, matrix="").stdout == ""
    (tmp_path / "Makefile").write_text("deps:\n\tpip install -r requirements.txt\n", encoding="utf-8")
    assert run_adopt_files(tmp_path, monkeypatch, {MAIN: f"{text}    - make deps\n"}, matrix="").stdout


def test_include_in_a_file_with_crlf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a file whose lines end in CRLF gets lines that end otherwise."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / MAIN).write_bytes(job("python:3.12-slim", "uv sync").replace("\n", "\r\n").encode())
    diff = builder("ci", "adopt").stdout.partition("--- /dev/null")[0]
    assert "+include:\r\n" in diff
    assert all(line.endswith("\r\n") for line in diff.splitlines(keepends=True)[3:])
