"""`builder ci adopt`: what it removes from caches and artifacts."""

from __future__ import annotations

import pytest

from tests.adopting import BAKED, Adopt


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("paths: [.cache/pip, venv/, .mypy_cache]", "paths: [.mypy_cache]"),
        ("paths: [.mypy_cache, .venv]", "paths: [.mypy_cache]"),
        ("paths: ['.venv', \".mypy_cache\", $CI_PROJECT_DIR/.cache/uv]", 'paths: [".mypy_cache"]'),
        ("paths: [.cache, .mypy_cache]", "paths: [.cache, .mypy_cache]"),
    ],
)
def test_cache_with_other_paths(adopt: Adopt, before: str, after: str) -> None:
    """Broken: a cache of something else is removed together with that of the dependencies."""
    text = BAKED + "  cache:\n    key: x\n    {}\n  script: uv sync\n"
    expected = f"-    {before}\n+    {after}\n" if before != after else ""
    assert adopt(text.format(before))[0] == expected


def test_cache_folder_with_pips_cache(adopt: Adopt) -> None:
    """Broken: `.cache` is removed although it also contains pre-commit's environments, or stays if it does not."""
    text = (
        BAKED
        + "  variables:\n    PIP_CACHE_DIR: .cache/pip\n{}  cache:\n    paths:\n      - .cache/\n  script: uv sync\n"
    )
    assert adopt(text.format(""))[0].endswith("-  cache:\n-    paths:\n-      - .cache/\n")
    changed, _ = adopt(text.format("    PRE_COMMIT_HOME: .cache/pre-commit\n"))
    assert changed == "-    PIP_CACHE_DIR: .cache/pip\n"


def test_untracked_files_stay_in_the_cache(adopt: Adopt) -> None:
    """Broken: a cache of untracked files is removed together with its paths."""
    text = BAKED + "  cache:\n    untracked: true\n    paths:\n      - .venv\n  script: uv sync\n"
    assert adopt(text)[0] == "-    paths:\n-      - .venv\n"


def test_cache_in_brackets_over_several_lines(adopt: Adopt) -> None:
    """Broken: a list in brackets loses a comma or a comment that it needs."""
    text = (
        BAKED + "  cache:\n    paths: [\n      .venv,  # uv's\n      .ruff_cache,  # ruff's\n    ]\n  script: uv sync\n"
    )
    assert adopt(text)[0] == "-      .venv,  # uv's\n"


def test_cache_by_anchor(adopt: Adopt) -> None:
    """Broken: an alias stays without its anchor, or a cache without paths stays."""
    text = """\
.cache: &cache
  key: {files: [uv.lock]}
  paths: [.venv]
one:
  image: python:3.12-alpine
  cache:
    <<: *cache
    policy: pull
  script: uv sync
two:
  image: python:3.12-alpine
  cache: &two
    - *cache
    - key: ruff
      paths: [.ruff_cache]
  script: uv sync
three:
  image: node:22
  cache: *cache
  script: npm test
"""
    changed, _ = adopt(text)
    lines = [line for line in changed.splitlines() if "image" not in line]
    assert lines == [
        "-.cache: &cache", "-  key: {files: [uv.lock]}", "-  paths: [.venv]", "-  cache:", "-    <<: *cache",
        "-    policy: pull", "-    - *cache", "-  cache: *cache",
    ]  # fmt: skip


def test_cache_by_extends_and_reference(adopt: Adopt) -> None:
    """Broken: a job extends or references a hidden job that was removed."""
    text = """\
.cached:
  cache:
    paths: [.venv]
.python:
  image: python:3.12-alpine
one:
  extends: .cached
  image: python:3.12-alpine
  script: uv sync
two:
  extends: [.python, .cached]
  script: uv sync
three:
  extends:
    - .python
    - .cached
  script: uv sync
four:
  extends: .python
  cache: !reference [.cached, cache]
  script: uv sync
five:
  extends: .cached
  image: python:3.13-alpine
  cache:
    policy: pull
  script: uv sync
"""
    changed, _ = adopt(text)
    assert [line for line in changed.splitlines() if "image" not in line] == [
        "-.cached:", "-  cache:", "-    paths: [.venv]", "-  extends: .cached", "-  extends: [.python, .cached]",
        "+  extends: [.python]", "-    - .cached", "-  cache: !reference [.cached, cache]", "-  extends: .cached",
        "-  cache:", "-    policy: pull",
    ]  # fmt: skip


def test_cache_that_another_image_needs(adopt: Adopt) -> None:
    """Broken: a Python job that keeps its image loses its cache."""
    text = """\
cache: {paths: [.cache/pip]}
variables:
  PIP_CACHE_DIR: .cache/pip
new:
  image: python:3.12-alpine
  script: pip install -r requirements.txt
old:
  image: python:3.9
  script: pip install -r requirements.txt
"""
    changed, remarks = adopt(text)
    assert changed == "-  image: python:3.12-alpine\n+  image: $CI_REGISTRY_IMAGE/ci:3.12-alpine\n"
    assert ".gitlab-ci.yml:1: new: its cache or artifacts stay: old does not run on a baked image" in remarks
    assert ".gitlab-ci.yml:3: PIP_CACHE_DIR stays: old does not run on a baked image" in remarks


def test_environment_in_artifacts(adopt: Adopt) -> None:
    """Broken: an environment in artifacts hides the baked one, or reports are removed with it."""
    text = (
        BAKED
        + """\
  artifacts:
    expire_in: 1 day
    paths:
      - venv/
      - dist/
  script: uv sync
"""
    )
    assert adopt(text)[0] == "-      - venv/\n"
    assert adopt(text.replace("      - dist/\n", ""))[0].startswith("-  artifacts:\n-    expire_in: 1 day\n")
    kept, _ = adopt(text.replace("      - dist/\n", "    reports:\n      junit: report.xml\n"))
    assert kept == "-    paths:\n-      - venv/\n"
