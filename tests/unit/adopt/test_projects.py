"""`builder ci adopt` on whole files, one for each common way to install dependencies."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from tests.adopting import Adopt, applied, run_adopt
from tests.gitlab import WAYS


def test_pip_with_a_download_cache_and_a_venv(adopt: Adopt) -> None:
    """Broken: the jobs of a pip project still create their own environment, or restore a cache of it."""
    changed, remarks = adopt(WAYS["pip-cache"])
    assert (
        changed
        == """\
-variables:
-  PIP_CACHE_DIR: "$CI_PROJECT_DIR/.cache/pip"
-  image: python:3.12-slim  # what we deploy on
+  image: $CI_REGISTRY_IMAGE/ci:3.12-bookworm-slim  # what we deploy on
-cache:
-  key: $CI_COMMIT_REF_SLUG
-  paths:
-    - .cache/pip
-    - venv/
-    - python -m venv venv
-    - source venv/bin/activate
-    - . venv/bin/activate
-  before_script:
-    - pip install virtualenv
-    - virtualenv venv
-    - source venv/bin/activate
-    - source venv/bin/activate
"""
    )
    assert ".gitlab-ci.yml:6: this comment stays, but the lines below it are removed" in remarks
    assert ".gitlab-ci.yml:11: init: 3.12-slim becomes 3.12-bookworm-slim, the only cell with this Python" in remarks
    assert (
        ".gitlab-ci.yml:20: init: it only installs what the image has; you can delete it and any `needs` on it"
        in remarks
    )


def test_pip_with_its_own_cache_on_a_long_lived_machine(adopt: Adopt) -> None:
    """Broken: jobs whose lock is newer than the image lose pip's cache outside the project."""
    changed, remarks = adopt(WAYS["pip-machine"])
    assert changed == "-image: python:3.12\n+image: $CI_REGISTRY_IMAGE/ci:3.12-bookworm-slim\n"
    assert "add git, compilers and other tools to its packages if jobs need them" in remarks


def test_uv_with_a_cache_keyed_on_the_lock(adopt: Adopt) -> None:
    """Broken: variables and caches of a uv project hide the warm cache, or `uv cache prune --ci` empties it."""
    changed, _ = adopt(WAYS["uv-cache"])
    assert (
        changed
        == """\
-  UV_VERSION: "0.13.8"
-  UV_LINK_MODE: copy
-  UV_CACHE_DIR: .uv-cache
-  image: ghcr.io/astral-sh/uv:$UV_VERSION-python$PYTHON_VERSION-$BASE_LAYER
-  cache:
-    - key:
-        files:
-          - uv.lock
-      paths:
-        - $UV_CACHE_DIR
+  image: $CI_REGISTRY_IMAGE/ci:$PYTHON_VERSION-$BASE_LAYER
-  after_script:
-    - uv cache prune --ci
"""
    )


def test_uv_pip_on_alpine(adopt: Adopt) -> None:
    """Broken: more than the image changes in jobs that install into the system with `uv pip`."""
    changed, remarks = adopt(WAYS["uv-system"])
    assert (
        changed
        == """\
-  image: ghcr.io/astral-sh/uv:python3.13-alpine
+  image: $CI_REGISTRY_IMAGE/ci:3.13-alpine
-  image: ghcr.io/astral-sh/uv:python3.13-alpine
+  image: $CI_REGISTRY_IMAGE/ci:3.13-alpine
"""
    )
    assert remarks == ""


EXAMPLES = sorted(
    folder.name for folder in (Path(__file__).parents[3] / "examples/gitlab").iterdir() if folder.is_dir()
)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(name: str, repository_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: the pipelines in examples/gitlab differ from the output of `builder ci adopt`."""
    folder = shutil.copytree(repository_root / "examples/gitlab" / name, tmp_path / name)
    before, after, matrix = (
        (folder / each).read_text(encoding="utf-8")
        for each in ("before.gitlab-ci.yml", "after.gitlab-ci.yml", "matrix.toml")
    )
    assert applied(before, run_adopt(folder, monkeypatch, before, matrix).stdout) == after


@pytest.mark.parametrize("way", WAYS)
def test_adopting_again_changes_nothing(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: adopting an adopted file changes it again."""
    first = run_adopt(tmp_path, monkeypatch, WAYS[way])
    again = run_adopt(tmp_path, monkeypatch, applied(WAYS[way], first.stdout))
    assert (again.exit_code, again.stdout) == (0, "")
    assert "builder: nothing to change in .gitlab-ci.yml" in again.stderr


def test_thousands_of_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: adopting takes time that grows with the square of the number of jobs."""
    head = WAYS["pip-cache"].replace("default:\n", ".base:\n  before_script: [. venv/bin/activate]\ndefault:\n")
    jobs = (
        f"job{number}:\n  extends: .base\n  cache: {{paths: [venv, out{number}]}}\n  variables: {{A{number}: $B}}\n"
        f"  script:\n    - pip install -r requirements.txt\n    - uv cache clean\n"
        for number in range(1000)
    )
    started = time.process_time()
    ended = run_adopt(tmp_path, monkeypatch, head + "".join(jobs))
    assert ended.exit_code == 0
    assert ended.stdout.count("\n-    - uv cache clean") == 1000
    assert time.process_time() - started < 3  # 1 s here, 17 s when the time was quadratic
