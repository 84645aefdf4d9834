"""`builder ci adopt`: programs with environments of their own: Poetry, PDM, Pipenv, Hatch, conda, tox, nox."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adopting import changed_lines, run_adopt_files
from tests.gitlab import MATRIX

MAIN = ".gitlab-ci.yml"
IMAGE = "  image: python:3.12-alpine\n"
MOVED = "-  image: python:3.12-alpine\n+  image: $CI_REGISTRY_IMAGE/ci:3.12-alpine\n"


def job(*lines: str, name: str = "test", more: str = "") -> str:
    """A job with these lines."""
    return f"{name}:\n{IMAGE}{more}  script:\n" + "".join(f"    - {line}\n" for line in lines)


def test_poetry_whose_jobs_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: jobs that each run `poetry install` keep their image, or a cached .venv hides the baked environment."""
    text = job(
        "pip install poetry", "poetry config virtualenvs.in-project true", "poetry install", ". .venv/bin/activate",
        "poetry run pytest", more="  cache: {paths: [.venv, .cache/pypoetry]}\n",
    )  # fmt: skip
    ended = run_adopt_files(tmp_path, monkeypatch, {MAIN: text})
    assert changed_lines(ended.stdout) == {
        MAIN: "-  image: python:3.12-alpine\n-  cache: {paths: [.venv, .cache/pypoetry]}\n"
        "+  image: $CI_REGISTRY_IMAGE/ci:3.12-alpine\n+  cache: {paths: [.cache/pypoetry]}\n"
        "-    - . .venv/bin/activate\n"
    }
    assert "Poetry will use the baked environment, which needs a lock for builder" in ended.stderr
    assert "poetry export --with dev -o requirements.txt" in ended.stderr


@pytest.mark.parametrize(
    ("fill", "use"),
    [
        ("poetry install", ". .venv/bin/activate"),
        ("poetry install --only main", "poetry run pytest"),
        ("pdm install", ".venv/bin/pytest"),
        (". .venv/bin/activate && pip install -e .", ".venv/bin/pytest"),
        ("uv sync", ".venv/bin/pytest"),
    ],
)
def test_environment_that_another_job_fills(
    fill: str, use: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken: a job loses the environment that another one fills with more than the lock, such as the project."""
    paths = "  artifacts: {paths: [.venv]}\n"
    text = job(fill, name="init", more=paths) + job(use, "pytest")
    files = {
        "pyproject.toml": "[build-system]\n",
        MAIN: text,
    }
    ended = run_adopt_files(tmp_path, monkeypatch, files)
    assert changed_lines(ended.stdout) == {}
    assert "run that in test too" in ended.stderr


@pytest.mark.parametrize("fill", ["poetry install --no-root", "uv sync", "pipenv install --dev"])
def test_environment_that_another_job_fills_with_the_lock_alone(
    fill: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken: jobs keep passing on an environment although the image has all of it."""
    paths = "  artifacts: {paths: [.venv]}\n"
    files = {MAIN: job(fill, name="init", more=paths) + job(". .venv/bin/activate", "pytest")}
    changed = changed_lines(run_adopt_files(tmp_path, monkeypatch, files).stdout)[MAIN]
    assert "-    - . .venv/bin/activate\n" in changed
    assert "-  artifacts: {paths: [.venv]}\n" in changed


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["hatch run test"], "Hatch makes environments of its own"),
        (["hatch -e lint run x"], "Hatch makes environments of its own"),
        (["conda activate app"], "conda makes environments of its own"),
        (["poetry env use 3.11", "poetry install"], "it selects another environment"),
        (["pip install poetry", "poetry sync"], "it would remove poetry itself"),
        (["pip install 'poetry<2'", "poetry install --sync"], "it would remove poetry itself"),
    ],
)
def test_program_that_would_not_use_the_baked_environment(
    lines: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken: a job moves to an image that it does not use, or that it breaks, or the reason is missing."""
    ended = run_adopt_files(tmp_path, monkeypatch, {MAIN: job(*lines)})
    assert changed_lines(ended.stdout) == {}
    assert words in ended.stderr


def test_variable_that_hides_the_baked_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: Pipenv is told to ignore the active environment, and makes another one in the baked image."""
    more = "  variables: {PIPENV_IGNORE_VIRTUALENVS: '1'}\n"
    ended = run_adopt_files(tmp_path, monkeypatch, {MAIN: job("pipenv sync", more=more)})
    assert changed_lines(ended.stdout) == {}
    assert "PIPENV_IGNORE_VIRTUALENVS hides the baked environment" in ended.stderr


@pytest.mark.parametrize(
    ("files", "lines", "after"),
    [
        (
            {"tox.ini": "[testenv]\n"},
            ["pip install tox", "tox -e py312"],
            ("pip install tox", "pip install tox tox-uv-bare"),
        ),
        (
            {"tox.ini": "[testenv]\n"},
            ["pip install -U ruff tox", "tox"],
            ("pip install -U ruff tox", "pip install -U ruff tox tox-uv-bare"),
        ),
        ({"noxfile.py": "import nox\n"}, ["pip install nox", "nox -s lint"], ("nox -s lint", "nox -db uv -s lint")),
    ],
)
def test_tox_and_nox_by_uv(
    files: dict[str, str], lines: list[str], after: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken: tox and nox download by pip what the image's warm cache has."""
    more = "  variables: {PIP_CACHE_DIR: .pip}\n  cache: {paths: [.pip, .tox]}\n"
    ended = run_adopt_files(tmp_path, monkeypatch, {MAIN: job(*lines, more=more), **files})
    changed = changed_lines(ended.stdout)[MAIN]
    assert f"-    - {after[0]}\n+    - {after[1]}\n" in changed
    assert "+  cache: {paths: [.tox]}\n" in changed


@pytest.mark.parametrize(
    ("files", "lines"),
    [
        ({}, ["pip install tox", "tox"]),
        ({"tox.ini": "[testenv]\ncommands = pip check\n"}, ["pip install tox", "tox"]),
        ({"tox.ini": "[testenv]\n"}, ["pip install tox==3.28", "tox"]),
        ({"noxfile.py": "session.run('pip', 'list')\n"}, ["nox"]),
        ({"noxfile.py": "import nox\n"}, ["pip install nox && nox"]),
        ({"noxfile.py": "import nox\n"}, ["nox -db conda"]),
    ],
)
def test_tox_and_nox_that_stay_with_pip(
    files: dict[str, str], lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken: sessions that call pip lose it, or the downloads of those that stay are no longer cached."""
    more = "  variables: {PIP_CACHE_DIR: .pip}\n  cache: {paths: [.pip]}\n"
    ended = run_adopt_files(tmp_path, monkeypatch, {MAIN: job(*lines, more=more), **files})
    assert changed_lines(ended.stdout) == {MAIN: MOVED}
    assert "could use uv and the image's warm cache" in ended.stderr


def test_tox_with_a_python_that_has_no_tox_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a job with Python 3.9 installs a plug-in of tox that has no release for it, and fails."""
    text = job("pip install tox", "tox").replace("3.12", "3.9")
    files = {MAIN: text, "tox.ini": "[testenv]\n"}
    matrix = MATRIX.replace('python = ["3.12", "3.13"]', 'python = ["3.9", "3.13"]')
    ended = run_adopt_files(tmp_path, monkeypatch, files, matrix=matrix)
    assert "tox-uv-bare" not in ended.stdout
    assert "could use uv and the image's warm cache" in ended.stderr


def test_environment_that_a_make_target_creates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a job no longer enters the environment that its Makefile creates and fills."""
    files = {
        MAIN: job("make install", ". .venv/bin/activate", "pytest"),
        "Makefile": "install: .venv\n\t.venv/bin/pip install pytest\n.venv:\n\tpython -m venv .venv\n",
    }
    ended = run_adopt_files(tmp_path, monkeypatch, files)
    assert changed_lines(ended.stdout) == {}
    assert "`make install`: it runs `python -m venv .venv`, which hides the baked environment" in ended.stderr
