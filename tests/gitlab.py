"""Typical GitLab files, one for each common way to install dependencies, and a matrix for their images."""

from __future__ import annotations

from typing import Final

MATRIX: Final = """\
python = ["3.12", "3.13"]
base = ["bookworm-slim", "alpine"]

[bases.bookworm-slim]
image = "docker.io/library/python:{python}-slim-bookworm"
family = "debian"

[bases.alpine]
image = "docker.io/library/python:{python}-alpine"
family = "alpine"
"""

WAYS: Final = {
    "pip-cache": """\
stages:
  - init
  - lint
  - test

# Only what is in the project directory can be cached.
variables:
  PIP_CACHE_DIR: "$CI_PROJECT_DIR/.cache/pip"

default:
  image: python:3.12-slim  # what we deploy on

# Downloads and the environment
cache:
  key: $CI_COMMIT_REF_SLUG
  paths:
    - .cache/pip
    - venv/

init:
  stage: init
  script:
    - python --version
    - python -m venv venv
    - source venv/bin/activate
    - pip install -r requirements.txt

mypy:
  stage: lint
  script:
    - . venv/bin/activate
    - pip install -r requirements.txt
    - mypy src

pylint:
  stage: lint
  before_script:
    - pip install virtualenv
    - virtualenv venv
    - source venv/bin/activate
  script:
    - pip install -r requirements.txt
    - 'pylint src --ignore=venv'

test:
  stage: test
  script:
    - source venv/bin/activate
    - pip install -r requirements.txt
    - pytest --junitxml=report.xml
  artifacts:
    reports:
      junit: report.xml
""",
    "pip-machine": """\
image: python:3.12

variables:
  PIP_CACHE_DIR: /cache/pip

lint:
  script:
    - pip install -r requirements.txt
    - ruff check .

test:
  script:
    - pip install --cache-dir /cache/pip -r requirements.txt
    - pytest
""",
    "uv-cache": """\
variables:
  PYTHON_VERSION: "3.12"
  BASE_LAYER: bookworm-slim
  UV_VERSION: "0.13.8"
  # The build directory is a mount of its own.
  UV_LINK_MODE: copy
  UV_CACHE_DIR: .uv-cache

stages: [lint, test]

.uv:
  image: ghcr.io/astral-sh/uv:$UV_VERSION-python$PYTHON_VERSION-$BASE_LAYER
  cache:
    - key:
        files:
          - uv.lock
      paths:
        - $UV_CACHE_DIR
  before_script:
    - uv sync --frozen || uv sync
  after_script:
    - uv cache prune --ci

lint:
  extends: .uv
  stage: lint
  script:
    - uv run ruff check .

test:
  extends: .uv
  stage: test
  script:
    - uv run pytest
""",
    "uv-system": """\
variables:
  UV_SYSTEM_PYTHON: 1

stages: [build, test]

install:
  stage: build
  image: ghcr.io/astral-sh/uv:python3.13-alpine
  script:
    - uv pip install rdflib

show:
  stage: test
  image: ghcr.io/astral-sh/uv:python3.13-alpine
  script:
    - uv pip show rdflib
""",
}
