"""`builder ci adopt` on pipelines that use much of GitLab's language at once: only what has to change does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adopting import changed_lines, run_adopt_files

MAIN = ".gitlab-ci.yml"

SERVICES = """\
default:
  image:
    name: python:3.12-slim-bookworm
    entrypoint: [""]
    pull_policy: if-not-present
  services:
    - name: postgres:16
      alias: db
      command: ["postgres", "-c", "fsync=off"]
  retry: {max: 2, when: runner_system_failure}
  interruptible: true

workflow:
  auto_cancel: {on_new_commit: interruptible}
  rules:
    - if: $CI_COMMIT_TAG
    - if: $CI_COMMIT_BRANCH && $CI_OPEN_MERGE_REQUESTS
      when: never
    - when: always

test:
  variables: {DATABASE_URL: "postgres://db/test"}
  script:
    - pip install -r requirements.txt
    - pytest
  coverage: '/^TOTAL.+?(\\d+%)$/'
  rules:
    - if: $CI_COMMIT_BRANCH
      changes: {paths: ["src/**/*", requirements.txt], compare_to: refs/heads/main}
  environment: {name: review/$CI_COMMIT_REF_SLUG, on_stop: stop}
  release: {tag_name: $CI_COMMIT_TAG, description: notes}
  needs:
    - {job: build, artifacts: true, optional: true}
    - {pipeline: $PARENT, job: wheels}
  id_tokens: {TOKEN: {aud: https://vault.example}}
  hooks: {pre_get_sources_script: [echo start]}

stop:
  image: alpine:3.20
  services: []
  script: [echo stop]
  environment: {name: review/$CI_COMMIT_REF_SLUG, action: stop}
  when: manual
"""

MATRIX_JOBS = """\
.versions: &versions
  - PY: ["3.12", "3.13"]
    DB: [sqlite, postgres]
  - PY: "3.12"
    DB: mysql

.job:
  image: python:${PY}-alpine
  before_script:
    - !reference [.setup, script]
    - python -m venv venv
    - . venv/bin/activate
  cache: &cache
    key: "$CI_JOB_NAME-$PY"
    fallback_keys: [main]
    paths: [venv]

.setup:
  script:
    - apk add git
    - uv --version || pip install uv

test:
  extends: .job
  parallel: {matrix: *versions}
  script:
    - pip install -r requirements.txt
    - pytest

report:
  image: python:3.12-alpine
  cache: {<<: *cache, policy: pull}
  needs:
    - job: test
      parallel: {matrix: [{PY: "3.12", DB: mysql}]}
  inherit: {default: false, variables: [A]}
  script: [pip list]
"""


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        (
            SERVICES,
            "-    name: python:3.12-slim-bookworm\n+    name: $CI_REGISTRY_IMAGE/ci:3.12-bookworm-slim\n",
        ),
        (
            MATRIX_JOBS,
            (
                "-  image: python:${PY}-alpine\n+  image: $CI_REGISTRY_IMAGE/ci:${PY}-alpine\n"
                "-    - python -m venv venv\n-    - . venv/bin/activate\n"
                '-  cache: &cache\n-    key: "$CI_JOB_NAME-$PY"\n-    fallback_keys: [main]\n-    paths: [venv]\n'
                "-  image: python:3.12-alpine\n-  cache: {<<: *cache, policy: pull}\n"
                "+  image: $CI_REGISTRY_IMAGE/ci:3.12-alpine\n"
            ),
        ),
    ],
    ids=["services", "matrix"],
)
def test_whole_pipeline(text: str, changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a keyword that is none of adopt's business is changed, or keeps it from changing what is."""
    ended = run_adopt_files(tmp_path, monkeypatch, {MAIN: text})
    assert changed_lines(ended.stdout) == {MAIN: changed}


def test_parts_in_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: what jobs inherit across four files, in three ways, is not seen as one pipeline."""
    files = {
        MAIN: "include:\n  - local: ci/all.yml\n    rules: [{if: $CI_COMMIT_BRANCH}]\nvariables: {UV_CACHE_DIR: .uv}\n"
        "default: {image: $PYTHON_IMAGE}\n",
        "ci/all.yml": "include: ['/ci/jobs/*.yml']\nvariables: {PYTHON_IMAGE: 'python:3.13-alpine'}\n",
        "ci/jobs/base.yml": ".uv:\n  before_script:\n    - uv sync\n  cache:\n    paths: [$UV_CACHE_DIR]\n",
        "ci/jobs/test.yml": "test:\n  extends: .uv\n  script: [uv run pytest, !reference [.end, script]]\n",
        "ci/jobs/end.yml": ".end:\n  script:\n    - uv cache prune --ci\nweb:\n  script: [npm test]\n",
    }
    ended = run_adopt_files(tmp_path, monkeypatch, files)
    assert changed_lines(ended.stdout) == {
        MAIN: "-variables: {UV_CACHE_DIR: .uv}\n-default: {image: $PYTHON_IMAGE}\n"
        "+default: {image: $CI_REGISTRY_IMAGE/ci:3.13-alpine}\n",
        "ci/all.yml": "-variables: {PYTHON_IMAGE: 'python:3.13-alpine'}\n",
        "ci/jobs/base.yml": "-  cache:\n-    paths: [$UV_CACHE_DIR]\n",
        "ci/jobs/end.yml": "-.end:\n-  script:\n-    - uv cache prune --ci\n",
        "ci/jobs/test.yml": "-  script: [uv run pytest, !reference [.end, script]]\n+  script: [uv run pytest]\n",
    }


def test_includes_three_deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: what a job extends three includes further down stays as it is, or the pipeline loses it."""
    files = {
        MAIN: "include: ci/one.yml\n",
        "ci/one.yml": "include: {local: /ci/two.yml}\ntest:\n  extends: [.python, .cached]\n  script: [pytest]\n",
        "ci/two.yml": "include: [{local: ci/deep/three.yml}]\n.cached:\n  cache: {paths: [.venv/, build/]}\n",
        "ci/deep/three.yml": "include: /ci/deep/four.yml\n.python:\n  extends: .image\n"
        "  before_script:\n    - python -m venv .venv\n    - . .venv/bin/activate\n    - pip install -r locked.txt\n",
        "ci/deep/four.yml": ".image: {image: 'python:3.12-alpine'}\n",
    }
    ended = run_adopt_files(tmp_path, monkeypatch, files)
    assert changed_lines(ended.stdout) == {
        "ci/two.yml": "-  cache: {paths: [.venv/, build/]}\n+  cache: {paths: [build/]}\n",
        "ci/deep/three.yml": "-    - python -m venv .venv\n-    - . .venv/bin/activate\n",
        "ci/deep/four.yml": "-.image: {image: 'python:3.12-alpine'}\n"
        "+.image: {image: '$CI_REGISTRY_IMAGE/ci:3.12-alpine'}\n",
    }


def test_child_pipelines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a job that starts a child pipeline is changed, or nobody is told that the child is another pipeline."""
    child = "test:\n  image: python:3.12-alpine\n  script: [uv sync, pytest]\n"
    files = {
        MAIN: "generate:\n  image: python:3.12-alpine\n  script: [python generate.py > jobs.yml]\n"
        "  artifacts: {paths: [jobs.yml]}\n"
        "written:\n  needs: [generate]\n  trigger:\n    strategy: depend\n    include:\n"
        "      - {artifact: jobs.yml, job: generate}\n"
        "kept:\n  trigger: {include: [{local: ci/child.yml}]}\n  rules: [{changes: [src/**/*]}]\n",
        "ci/child.yml": child,
    }
    ended = run_adopt_files(tmp_path, monkeypatch, files)
    image = "-  image: python:3.12-alpine\n+  image: $CI_REGISTRY_IMAGE/ci:3.12-alpine\n"
    assert changed_lines(ended.stdout) == {MAIN: image}
    assert "ci/child.yml" in ended.stderr
    (tmp_path / MAIN).write_text(child, encoding="utf-8")
    alone = run_adopt_files(tmp_path, monkeypatch, {}, "ci/child.yml")
    assert changed_lines(alone.stdout) == {"ci/child.yml": image}


def test_several_locks_in_one_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: one lock is taken for all of a repository's projects, and nobody is told."""
    files = {
        MAIN: ".job:\n  image: python:3.12-slim-bookworm\n  before_script: [cd $FOLDER]\n"
        "api:\n  extends: .job\n  variables: {FOLDER: api}\n  script: [uv sync, pytest]\n"
        "worker:\n  extends: .job\n  variables: {FOLDER: worker}\n  script: [uv sync, pytest]\n"
        "  rules: [{changes: {paths: [worker/**/*]}}]\n",
        "api/uv.lock": "version = 1\n",
        "worker/uv.lock": "version = 1\n",
    }
    ended = run_adopt_files(tmp_path, monkeypatch, files, matrix="")
    assert "worker/uv.lock" in ended.stderr
