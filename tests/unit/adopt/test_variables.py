"""`builder ci adopt`: which variables it removes."""

from __future__ import annotations

import pytest

from tests.adopting import BAKED, Adopt


@pytest.mark.parametrize(
    "line",
    [
        "UV_CACHE_DIR: .uv-cache",
        "UV_CACHE_DIR: /cache/uv",
        "UV_LINK_MODE: copy",
        "UV_COMPILE_BYTECODE: 1",
        "UV_PROJECT_ENVIRONMENT: $CI_PROJECT_DIR/.venv",
        "VIRTUAL_ENV: .venv",
        "UV_PYTHON: .venv/bin/python",
        "PIP_CACHE_DIR: ${CI_PROJECT_DIR}/.pip",
    ],
)
def test_variables_that_are_removed(adopt: Adopt, line: str) -> None:
    """Broken: a variable of the file overrides one of the image."""
    changed, _ = adopt(f"variables:\n  LEVEL: debug\n  {line}\n{BAKED}  script: uv sync\n")
    assert changed == f"-  {line}\n"
    changed, _ = adopt(f"{BAKED}  variables:\n    {line}\n  script: uv sync\n")
    assert changed == f"-  variables:\n-    {line}\n"


@pytest.mark.parametrize(
    "line",
    ["PIP_CACHE_DIR: /cache/pip", "UV_SYSTEM_PYTHON: 1", "UV_PROJECT_ENVIRONMENT: /opt/uv/venv", "UV_INDEX_URL: x"],
)
def test_variables_that_stay(adopt: Adopt, line: str) -> None:
    """Broken: a variable is removed although it does not conflict with the image."""
    assert adopt(f"variables:\n  {line}\n{BAKED}  script: uv sync\n")[0] == ""


def test_variable_in_use(adopt: Adopt) -> None:
    """Broken: a variable is removed although a script still uses it."""
    text = f"variables:\n  PIP_CACHE_DIR: .pip\n{BAKED}  script:\n    - du -s $PIP_CACHE_DIR\n    - uv sync\n"
    changed, remarks = adopt(text)
    assert changed == ""
    assert ".gitlab-ci.yml:2: PIP_CACHE_DIR stays: line 6 uses it" in remarks


def test_variable_that_only_a_removed_one_used(adopt: Adopt) -> None:
    """Broken: a variable stays although only removed lines used it."""
    text = f"variables:\n  ROOT: .cache\n  UV_CACHE_DIR: $ROOT/uv\n{BAKED}  script: uv sync\n"
    assert adopt(text)[0] == "-variables:\n-  ROOT: .cache\n-  UV_CACHE_DIR: $ROOT/uv\n"
    changed, remarks = adopt(f"include: {{local: x.yml}}\n{text}")
    assert changed == "-  UV_CACHE_DIR: $ROOT/uv\n"
    assert "ROOT stays: nothing here uses it any more, but an included file might" in remarks


def test_uv_python_with_a_version(adopt: Adopt) -> None:
    """Broken: UV_PYTHON, which may select another interpreter on purpose, is removed, or there is no remark."""
    changed, remarks = adopt(f"variables:\n  UV_PYTHON: '3.12'\n{BAKED}  script: uv sync\n")
    assert changed == ""
    assert ".gitlab-ci.yml:2: UV_PYTHON stays: it may be intended; without it" in remarks


def test_cache_variable_that_another_job_does_not_need(adopt: Adopt) -> None:
    """Broken: a job that caches nothing, on another image, keeps the variable that hides the image's warm cache."""
    text = f"variables:\n  UV_CACHE_DIR: .uv\n{BAKED}  script: uv sync\nbuild:\n  image: node:22\n  script: uv build\n"
    assert adopt(text)[0] == "-variables:\n-  UV_CACHE_DIR: .uv\n"
    assert adopt(f"{text}  cache: {{paths: [.uv]}}\n")[0] == ""
