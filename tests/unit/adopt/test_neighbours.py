"""`builder ci adopt` on jobs beside those that work on the project: publishing, other locks, programs of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli

from tests.adopting import added_file, applied, changed_lines, run_adopt_files

MAIN = ".gitlab-ci.yml"
UV = {"uv.lock": "version = 1\n"}
TEST = "test:\n  image: python:3.12-slim\n  script:\n    - uv sync --frozen\n    - pytest\n"
PUBLISH = "publish:\n  image: IMAGE\n  script:\n    - pip install twine\n    - twine upload dist/*\n"


def matrix_of(diff: str) -> dict[str, object]:
    """The matrix in a diff."""
    return tomli.loads(added_file(diff, "matrix.toml"))


@pytest.mark.parametrize(
    ("image", "moved"),
    [("python:latest", "3.12-slim"), ("python:3.14", ""), ("python:3.12-alpine", ""), ("python:3.12", "3.12-slim")],
)
def test_job_that_only_publishes(image: str, moved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a cell is built and verified each night for a job that installs nothing of the project."""
    text = TEST + PUBLISH.replace("IMAGE", image)
    diff = run_adopt_files(tmp_path, monkeypatch, {**UV, MAIN: text}, matrix="").stdout
    matrix = matrix_of(diff)
    assert (matrix["python"], matrix["base"]) == (["3.12"], ["slim"])
    assert (f"-  image: {image}\n" in changed_lines(diff)[MAIN]) == bool(moved)
    assert f"+  image: $CI_REGISTRY_IMAGE/ci:{moved}\n" in changed_lines(diff)[MAIN] or not moved


@pytest.mark.parametrize(
    ("lines", "tools"),
    [
        (("uvx ruff check", "uvx ruff format --check"), ["ruff"]),
        (("uvx ruff@0.14.5 check", "uv tool run mypy@latest ."), ["ruff==0.14.5", "mypy"]),
        (("uvx ruff@0.14.5 check", "uvx ruff check && uvx -q --from httpie http GET /"), ["ruff", "httpie"]),
        (("uv tool install 'mypy==1.13'", "uvx --from 'httpie' http GET /"), ["mypy==1.13", "httpie"]),
        (("uvx --with x pytest", "uvx git+https://h.example/x", "uvx $TOOL", "echo uvxyz ruff"), None),
    ],
)
def test_tools_that_jobs_run(
    lines: tuple[str, ...], tools: list[str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken: jobs on the proposed images fetch a tool each time, or another version than they name."""
    text = TEST + "".join(f"    - {line}\n" for line in lines)
    diff = run_adopt_files(tmp_path, monkeypatch, {**UV, MAIN: text}, matrix="").stdout
    assert matrix_of(diff).get("tools") == tools


def test_packages_of_all_jobs_on_a_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a job beside the others keeps a full image, and with it what they share, because nobody adds `make`."""
    text = "image: python:3.12\nbefore_script:\n  - python -m venv venv\n  - source venv/bin/activate\n"
    text += "test:\n  script: ['pip install -e .', pytest]\npages:\n  script: [pip install sphinx, make html]\n"
    diff = run_adopt_files(tmp_path, monkeypatch, {**UV, MAIN: text}, matrix="").stdout
    assert 'packages = ["make"]' in diff
    assert "-  - source venv/bin/activate\n" in changed_lines(diff)[MAIN]


def test_hidden_jobs_for_other_projects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a file that other projects include sends their jobs to images that these projects do not have."""
    text = TEST.replace("test:", ".test:")
    assert run_adopt_files(tmp_path, monkeypatch, {**UV, MAIN: text}, matrix="").stdout == ""
    assert run_adopt_files(tmp_path, monkeypatch, {**UV, MAIN: f"{text}a: {{extends: .test}}\n"}, matrix="").stdout
    files = {**UV, "ci/x.yml": text, MAIN: "include: [ci/x.yml]\na: {extends: .test}\n"}
    assert run_adopt_files(tmp_path, monkeypatch, files, matrix="").stdout


def test_script_that_enters_an_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: the lines that make an environment go, although a script of the project enters it."""
    script = "#!/bin/sh\n. .venv/bin/activate\npytest\n"
    text = "test:\n  image: python:3.12-slim\n  script:\n    - python -m venv .venv\n    - ./ci.sh\n    - pytest\n"
    ended = run_adopt_files(tmp_path, monkeypatch, {**UV, "ci.sh": script, MAIN: text}, matrix="")
    assert "-    - python -m venv" not in ended.stdout
    assert "uses a path inside it" in ended.stderr


@pytest.mark.parametrize(
    "script",
    [
        "[pip install hatch, hatch build, hatch publish]",
        "[rye sync --no-lock, rye test]",
        "[python setup.py sdist bdist_wheel, twine upload dist/*]",
    ],
)
def test_jobs_that_use_nothing_of_an_image(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: images are proposed for jobs that would install the same as before on them."""
    text = f"image: python:3.12-slim\nbefore_script: [pip install tools]\nbuild:\n  script: {script}\n"
    ended = run_adopt_files(tmp_path, monkeypatch, {**UV, MAIN: text}, matrix="")
    assert ended.stdout == ""
    assert "becomes" not in ended.stderr


@pytest.mark.parametrize("image", ["python:3.5-slim", "python:3.11-slim-buster"])
def test_image_that_nobody_can_bake(image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: the reason speaks of a matrix that the project does not have."""
    text = TEST.replace("python:3.12-slim", image)
    ended = run_adopt_files(tmp_path, monkeypatch, {**UV, MAIN: text}, matrix="")
    assert ended.stdout == ""
    assert f"{image}: builder knows Python 3.8 to 3.14, on Debian bullseye and later, or on Alpine" in ended.stderr


def test_what_jobs_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: the proposed images lack a group that jobs install, so that these jobs download it each time."""
    pyproject = '[project]\nname = "x"\nversion = "1"\n[project.optional-dependencies]\ns3 = ["boto3"]\n'
    pyproject += '[dependency-groups]\ndev = ["pytest"]\nlint = ["ruff"]\nother = ["six"]\n'
    lines = ("uv sync --frozen --all-packages", "uv sync --frozen --only-group=lint", "pip install -e .[s3]")
    text = "test:\n  image: python:3.12-slim\n  script:\n" + "".join(f"    - {line}\n" for line in lines)
    files = {**UV, "pyproject.toml": pyproject, MAIN: text}
    diff = run_adopt_files(tmp_path, monkeypatch, files, matrix="").stdout
    assert matrix_of(diff)["install"] == {"groups": ["lint"], "extras": ["s3"], "packages": "all"}


@pytest.mark.parametrize(
    "rules",
    [
        "[{if: $CI_COMMIT_TAG, variables: {PY: '3.13'}}, {if: $X, when: never}, {variables: {PY: '3.12'}}]",
        "[{if: $T, variables: {BASE: alpine, PY: '3.13'}}, {variables: {BASE: slim, PY: '3.12'}}]",
    ],
)
def test_variables_that_every_pipeline_sets(rules: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a job stays where it is because a variable has no default, although each rule sets it."""
    image = "python:$PY-$BASE" if "BASE" in rules else "python:$PY-slim"
    job = TEST.replace("python:3.12-slim", image)
    text = f"workflow: {{rules: {rules}}}\n{job}  rules: [{{if: $A}}, {{when: always}}]\n"
    diff = run_adopt_files(tmp_path, monkeypatch, {**UV, MAIN: text}, matrix="").stdout
    assert matrix_of(diff)["python"] == ["3.12", "3.13"]
    assert f"+  image: $CI_REGISTRY_IMAGE/ci:{image.partition(':')[2]}\n" in changed_lines(diff)[MAIN]


def test_rules_that_set_a_variable_only_sometimes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a job moves although its image is unknown when another rule holds."""
    text = f"workflow:\n  rules: [{{if: $A, variables: {{PY: '3.13'}}}}, {{if: $B}}]\n{TEST.replace('3.12', '$PY')}"
    ended = run_adopt_files(tmp_path, monkeypatch, {**UV, MAIN: text}, matrix="")
    assert ended.stdout == ""
    assert "$PY is not set in this file" in ended.stderr


def test_jobs_of_other_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a job moves to images without its dependencies, and replaces all that they have."""
    text = ".uv:\n  image: python:3.12-slim\n  before_script:\n    - cd $DIR\n    - uv sync --frozen\n"
    for name in ("api", "web"):
        text += f"{name}:\n  extends: .uv\n  variables: {{DIR: {name}}}\n  script: [pytest]\n"
    text += "tool:\n  extends: .uv\n  before_script: []\n  script: ['uv run --directory web pytest', pytest]\n"
    text += "docs:\n  image: python:3.12-slim\n  script: [pip install -r docs/requirements.txt, mkdocs build]\n"
    text += (
        "both:\n  image: python:3.12-slim\n  script: [pip install -r api/uv.lock -r docs/requirements.txt, pytest]\n"
    )
    text += "then:\n  image: python:3.12-slim\n  script: [uv sync --project api, 'cd docs && mkdocs build']\n"
    text += "lint:\n  extends: .uv\n  variables: {DIR: ./api/src}\n  script: [pytest]\n"
    files = {"api/uv.lock": "version = 1\n", "web/uv.lock": "version = 1\n", MAIN: text}
    files["docs/requirements.txt"] = "mkdocs==1 --hash=sha256:0\n"
    ended = run_adopt_files(tmp_path, monkeypatch, files, matrix="")
    changed = changed_lines(ended.stdout)[MAIN]
    assert "+  image: $CI_REGISTRY_IMAGE/ci:3.12-slim\n" in changed
    assert changed.count("+  image: python:3.12-slim\n") == 2
    assert "docs: left alone, and so is its image python:3.12-slim: it works with docs/requirements.txt" in ended.stderr
    assert ended.stderr.count("it works with web/uv.lock, and the images are made from api/uv.lock") == 2
    after = {**files, MAIN: applied(text, ended.stdout.partition("--- /dev/null")[0])}
    again = run_adopt_files(tmp_path, monkeypatch, after, matrix=added_file(ended.stdout, "matrix.toml"))
    assert again.stdout == ""
    other = {**files, MAIN: f"include:\n  - local: .gitlab/prebuilt.yml\n    inputs:\n      lock: web/uv.lock\n{text}"}
    named = run_adopt_files(tmp_path, monkeypatch, other, matrix=added_file(ended.stdout, "matrix.toml"))
    assert "it works with api/uv.lock, and the images are made from web/uv.lock" in named.stderr


@pytest.mark.parametrize(
    ("include", "becomes"),
    [
        ("include: ci/x.yml\n", "  - ci/x.yml\n"),
        ("include: '/ci/x.yml'  \n", "  - '/ci/x.yml'\n"),
        ("include: ci/x.yml # ours\n", ""),
        ("include: &own ci/x.yml\n", "  - &own ci/x.yml\n"),
    ],
)
def test_single_include(include: str, becomes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: who includes one file has to add the component by hand."""
    files = {**UV, "ci/x.yml": "x: {script: [make]}\n", MAIN: f"{include}\n{TEST}"}
    ended = run_adopt_files(tmp_path, monkeypatch, files, matrix="")
    changed = changed_lines(ended.stdout)[MAIN]
    assert (f"+include:\n+{becomes}+  - local: .gitlab/prebuilt.yml\n" in changed) == bool(becomes)
    assert ("include the component by hand" in ended.stderr) == (not becomes)


def test_program_in_an_environment_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a cache goes although it holds Poetry itself, which no image has."""
    text = "variables: {POETRY_HOME: $CI_PROJECT_DIR/.poetry}\ntest:\n  image: python:3.12-slim\n"
    text += "  cache:\n    paths: [.poetry, .venv]\n  script:\n    - python3 -m venv $POETRY_HOME\n"
    text += "    - $POETRY_HOME/bin/pip install poetry\n    - $POETRY_HOME/bin/poetry install\n    - pytest\n"
    files = {"poetry.lock": "", "pyproject.toml": "", MAIN: text}
    changed = changed_lines(run_adopt_files(tmp_path, monkeypatch, files, matrix="").stdout)[MAIN]
    assert "+    paths: [.poetry]\n" in changed
