"""`builder ci adopt`: images and caches that jobs inherit from each other, from defaults and from other files."""

from __future__ import annotations

from tests.adopting import Adopt
from tests.gitlab import MATRIX


def test_image_is_edited_where_it_is_defined(adopt: Adopt) -> None:
    """Broken: a job that inherits its image gets its own, or an anchor is edited twice."""
    text = """\
.python: &python
  image: &image python:3.12-alpine
.base:
  image: python:3.13-alpine
one:
  <<: *python
  script: uv sync
two:
  image: *image
  script: uv sync
three:
  extends: [.base]
  script: uv sync
four:
  image: !reference [.base, image]
  script: [!reference [three, script], pytest]
"""
    assert (
        adopt(text)[0]
        == """\
-  image: &image python:3.12-alpine
+  image: &image $CI_REGISTRY_IMAGE/ci:3.12-alpine
-  image: python:3.13-alpine
+  image: $CI_REGISTRY_IMAGE/ci:3.13-alpine
"""
    )


def test_variable_of_the_extending_job(adopt: Adopt) -> None:
    """Broken: the image of a hidden job is expanded without the variables of the jobs that extend it."""
    text = """\
.base:
  image: python:$PY-alpine
  script: pip install -r requirements.txt
one:
  extends: .base
  variables: {PY: "3.12"}
two:
  extends: .base
  variables: {PY: "%s"}
"""
    assert "+  image: $CI_REGISTRY_IMAGE/ci:$PY-alpine\n" in adopt(text % "3.13")[0]
    assert adopt(text % "3.9")[0] == ""


def test_jobs_on_other_images_and_triggers_are_not_touched(adopt: Adopt) -> None:
    """Broken: a node job loses its cache, or there is a remark about a deploy job."""
    text = """\
image: node:22
cache:
  paths: [node_modules, .venv]
web:
  script: npm ci
deploy:
  trigger: acme/deploy
child:
  image: python:3.12-alpine
  trigger:
    include: child.yml
"""
    assert adopt(text) == ("", "builder: nothing to change in .gitlab-ci.yml\n")


def test_job_without_an_image(adopt: Adopt) -> None:
    """Broken: a job without an image is changed, or there is no remark about what to do."""
    changed, remarks = adopt(
        "test:\n  script:\n    - pip install -r requirements.txt\n", MATRIX.replace(', "3.13"', "")
    )
    assert changed == ""
    assert remarks.startswith(
        ".gitlab-ci.yml:3: test: left alone: it has no image; if it runs on a Docker runner, set `image:` to one of"
    )
    assert "$CI_REGISTRY_IMAGE/ci:3.12-bookworm-slim, $CI_REGISTRY_IMAGE/ci:3.12-alpine" in remarks


def test_job_of_an_included_file(adopt: Adopt) -> None:
    """Broken: a job whose image is set in another file is changed."""
    text = "include: {local: base.yml}\ntest:\n  extends: .python\n  script: uv sync\n"
    changed, remarks = adopt(text)
    assert changed == ""
    assert ".gitlab-ci.yml:4: test: left alone: it extends .python, which no file here defines" in remarks


def test_job_on_an_included_baked_image(adopt: Adopt) -> None:
    """Broken: a job that extends a job from `builder ci images` keeps its cache."""
    text = """\
include: {local: images.yml}
test:
  extends: .prebuilt-3.12-alpine
  cache: {paths: [.venv]}
  script: uv sync
"""
    assert adopt(text)[0] == "-  cache: {paths: [.venv]}\n"


def test_job_that_excludes_defaults(adopt: Adopt) -> None:
    """Broken: `inherit:` is ignored, so that the default image counts for a job that excludes it."""
    text = """\
default:
  image: python:3.9
test:
  inherit: {default: false}
  image: python:3.12-alpine
  cache: {paths: [.venv]}
  script: uv run pytest
lint:
  inherit: {default: [tags]}
  script: npm test
"""
    changed, remarks = adopt(text)
    assert "-  cache: {paths: [.venv]}\n" in changed
    assert remarks == ""


def test_circular_jobs(adopt: Adopt) -> None:
    """Broken: jobs that extend or reference each other in a circle cause an endless loop."""
    text = """\
one:
  extends: two
  image: python:3.12-alpine
  script: [!reference [one, script], uv sync]
two:
  extends: one
  variables: {A: $B, B: $A}
three:
  image: !reference [three, image]
  script: uv sync
"""
    assert "+  image: $CI_REGISTRY_IMAGE/ci:3.12-alpine\n" in adopt(text)[0]


def test_job_that_needs_the_inherited_image(adopt: Adopt) -> None:
    """Broken: one job that would fail on the baked image keeps all jobs that share its image from moving."""
    text = """\
image: python:3.12
lint:
  script: uv run ruff check
test:
  script: uv run pytest
release:
  # with git
  stage: deploy
  script:
    - git push
"""
    changed, remarks = adopt(text)
    assert changed == ("-image: python:3.12\n+image: $CI_REGISTRY_IMAGE/ci:3.12-bookworm-slim\n+  image: python:3.12\n")
    assert "release: left alone, and so is its image python:3.12: `git push` needs git" in remarks
    changed, _ = adopt(text.replace("lint:\n  script: uv run ruff check\ntest:", "test:").replace("uv run", "git"))
    assert changed == ""


def test_job_that_needs_an_image_that_it_cannot_have(adopt: Adopt) -> None:
    """Broken: a job in braces, or one whose image has an entrypoint, gets an image in the wrong place."""
    jobs = "lint:\n  script: uv run ruff check\ntest:\n  script: uv run pytest\n"
    assert adopt(f"image: python:3.12\n{jobs}release: {{script: [git push]}}\n")[0] == ""
    image = "image:\n  name: python:3.12\n  entrypoint: ['']\n"
    assert adopt(f"{image}{jobs}release:\n  script: [git push]\n")[0] == ""
