"""`builder ci adopt`: which images it replaces, and by which cells."""

from __future__ import annotations

import pytest

from tests.adopting import Adopt, job
from tests.gitlab import MATRIX


@pytest.mark.parametrize(
    ("image", "becomes"),
    [
        ("python:3.12-slim-bookworm", "3.12-bookworm-slim"),
        ("python:3.12.4-slim-bookworm", "3.12-bookworm-slim"),
        ("python:3.12-bookworm", "3.12-bookworm-slim"),
        ("python:3.13-alpine3.20", "3.13-alpine"),
        ("docker.io/library/python:3.13-alpine", "3.13-alpine"),
        ("docker.io/python:3.13-alpine", "3.13-alpine"),
        ("ghcr.io/astral-sh/uv:python3.12-bookworm-slim", "3.12-bookworm-slim"),
        ("ghcr.io/astral-sh/uv:0.13.8-python3.13-alpine", "3.13-alpine"),
        ("$CI_DEPENDENCY_PROXY_GROUP_IMAGE_PREFIX/python:3.13-alpine", "3.13-alpine"),
        ("${CI_DEPENDENCY_PROXY_DIRECT_GROUP_IMAGE_PREFIX}/python:3.13-alpine", "3.13-alpine"),
        ("gitlab.example.com/acme/dependency_proxy/containers/python:3.13-alpine", "3.13-alpine"),
        ("mirror.example.com/library/python:3.13-alpine", "3.13-alpine"),
        ("mirror.example.com:5000/python:3.13-alpine", "3.13-alpine"),
        ("mirror.example.com/ghcr/astral-sh/uv:python3.13-alpine", "3.13-alpine"),
        ("nexus.example.com/deep/down/python:3.13-alpine", "3.13-alpine"),
        ("harbor.example/proxy/python:3.13-alpine", "3.13-alpine"),
        ("artifacts.example/docker-hub-remote/library/python:3.12-slim", "3.12-bookworm-slim"),
        ("dockerhub-mirror.example/python:3.13-alpine", "3.13-alpine"),
        ("registry.example/acme/dockerhub/python:3.13-alpine", "3.13-alpine"),
        ("$DOCKER_HUB_PROXY/python:3.13-alpine", "3.13-alpine"),
        ("${REGISTRY_MIRROR}/library/python:3.13-alpine", "3.13-alpine"),
        ("${CI_DEPENDENCY_PROXY_SERVER}/acme/dependency_proxy/containers/python:3.13-alpine", "3.13-alpine"),
    ],
)
def test_known_images(adopt: Adopt, image: str, becomes: str) -> None:
    """Broken: a Python image is not recognised, or replaced by the wrong cell."""
    changed, _ = adopt(job(image), MATRIX + '[mirrors]\n"docker.io" = "nexus.example.com/deep/down"\n')
    assert changed == f"-  image: {image}\n+  image: $CI_REGISTRY_IMAGE/ci:{becomes}\n"


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("python:3.9-slim", 'no cell of matrix.toml has Python 3.9; add "3.9" to its python list'),
        (
            "python:3.12-slim-bullseye",
            "no cell of matrix.toml with Python 3.12 has a matching base; add one to base and [bases]",
        ),
        ("python:3.12-windowsservercore", "has a matching base"),
        ("python:2.7-slim", "has Python 2, for which there are no baked images"),
        ("python:rc-slim", "does not contain a Python version such as 3.12"),
        ("python:slim", "does not contain a Python version such as 3.12"),
        ("python:latest", "does not contain a Python version such as 3.12"),
        ("ghcr.io/astral-sh/uv:debian-slim", "does not contain a Python version such as 3.12"),
        ("python:3", "does not contain a Python version such as 3.12"),
        ("python", "does not contain a Python version such as 3.12"),
        ("ghcr.io/astral-sh/uv:latest", "does not contain a Python version such as 3.12"),
        ("ghcr.io/astral-sh/uv:0.13.8", "does not contain a Python version such as 3.12"),
        ("python:3.12-slim@sha256:" + "0" * 64, "is pinned by digest"),
        ("python:$PYTHON_VERSION-slim", "$PYTHON_VERSION is not set in this file"),
        ("$REGISTRY/python:3.12", "$REGISTRY is not set in this file"),
        ("$PYTHON_IMAGE", "$PYTHON_IMAGE is not set in this file"),
        ('"python:$[[ inputs.python ]]-slim"', "it contains a component input"),
        ("registry.example.com/acme/python:3.12", "is not a Python image that builder knows"),
        ("node:22", "is not a Python image that builder knows"),
        ("$IMAGE", "is not a Python image that builder knows"),
    ],
)
def test_images_that_are_left_alone(adopt: Adopt, image: str, words: str) -> None:
    """Broken: an image is replaced by an unrelated one, or there is no remark about why it is left alone."""
    changed, remarks = adopt(job(image))
    assert changed == ""
    assert remarks.startswith(".gitlab-ci.yml:2: test: left alone: ")
    assert words in remarks


@pytest.mark.parametrize(
    ("image", "base"),
    [
        ("python", "bookworm-slim"), ("python:latest", "bookworm-slim"), ("python:3-slim", "bookworm-slim"),
        ("python:alpine", "alpine"), ("python:3-alpine3.20", "alpine"), ("ghcr.io/astral-sh/uv:alpine", "alpine"),
        ("ghcr.io/astral-sh/uv:0.13-bookworm-slim", "bookworm-slim"),
    ],
)  # fmt: skip
def test_open_version_and_a_matrix_of_one_python(adopt: Adopt, image: str, base: str) -> None:
    """Broken: `python:latest` is left alone although the matrix has only one Python, or nobody is told."""
    changed, remarks = adopt(job(image), MATRIX.replace(', "3.13"', ""))
    assert changed == f"-  image: {image}\n+  image: $CI_REGISTRY_IMAGE/ci:3.12-{base}\n"
    assert f"an image without a Python version in its name becomes 3.12-{base}" in remarks


def test_patch_release_that_the_matrix_lacks(adopt: Adopt) -> None:
    """Broken: a pinned patch release is lost without a remark."""
    changed, remarks = adopt(job("python:3.12.4-alpine"))
    assert "+  image: $CI_REGISTRY_IMAGE/ci:3.12-alpine\n" in changed
    assert "Python 3.12.4 becomes the cell 3.12-alpine" in remarks


def test_several_matching_cells(adopt: Adopt) -> None:
    """Broken: one of two matching Debian bases is used at random."""
    two = MATRIX.replace('"alpine"]', '"alpine", "trixie-slim"]') + (
        '[bases.trixie-slim]\nimage = "python:{python}-slim-trixie"\nfamily = "debian"\n'
    )
    changed, remarks = adopt(job("python:3.12"), two)
    assert changed == ""
    assert "several cells match (3.12-bookworm-slim, 3.12-trixie-slim); set one by hand" in remarks
    assert "3.12-trixie-slim" in adopt(job("python:3.12-trixie"), two)[0]


def test_cell_with_a_patch_release(adopt: Adopt) -> None:
    """Broken: `python:3.12` matches no cell if the matrix pins patch releases."""
    pinned = MATRIX.replace('"3.12"', '"3.12.4"')
    changed, remarks = adopt(job("python:3.12-alpine"), pinned)
    assert "+  image: $CI_REGISTRY_IMAGE/ci:3.12.4-alpine\n" in changed
    assert "Python 3.12 becomes the cell 3.12.4-alpine" in remarks
    assert adopt(job("python:3.12.9-alpine"), pinned)[0] == ""


def test_repository_of_the_matrix(adopt: Adopt) -> None:
    """Broken: jobs use images from a repository other than the one they are pushed to."""
    changed, _ = adopt(job("python:3.12-alpine"), f'repository = "registry.example.com/acme/ci"\n{MATRIX}')
    assert "+  image: registry.example.com/acme/ci:3.12-alpine\n" in changed


@pytest.mark.parametrize(
    ("image", "becomes"),
    [
        ('"python:3.12-alpine"', '"$CI_REGISTRY_IMAGE/ci:3.12-alpine"'),
        ("'python:3.12-alpine'  # ours", "'$CI_REGISTRY_IMAGE/ci:3.12-alpine'  # ours"),
        ("&python python:3.12-alpine", "&python $CI_REGISTRY_IMAGE/ci:3.12-alpine"),
        ('!!str "python:3.12-alpine"', '!!str "$CI_REGISTRY_IMAGE/ci:3.12-alpine"'),
        ("{name: python:3.12-alpine, entrypoint: ['']}", "{name: $CI_REGISTRY_IMAGE/ci:3.12-alpine, entrypoint: ['']}"),
    ],
)  # fmt: skip
def test_style_of_an_image_stays(adopt: Adopt, image: str, becomes: str) -> None:
    """Broken: quotes, anchors, comments or other keys of an image are lost."""
    assert adopt(job(image))[0] == f"-  image: {image}\n+  image: {becomes}\n"


def test_image_as_a_mapping(adopt: Adopt) -> None:
    """Broken: the entrypoint of an image is dropped, or its name is not found."""
    changed, _ = adopt(job("\n    name: python:3.12-alpine\n    entrypoint: ['']"))
    assert changed == "-    name: python:3.12-alpine\n+    name: $CI_REGISTRY_IMAGE/ci:3.12-alpine\n"


def test_image_over_two_lines(adopt: Adopt) -> None:
    """Broken: an image in a block scalar is changed to something invalid."""
    changed, remarks = adopt(job(">-\n    python:3.12-alpine"))
    assert changed == ""
    assert "left alone: write $CI_REGISTRY_IMAGE/ci:3.12-alpine here, on one line" in remarks


def test_variable_with_the_version_stays_in_the_tag(adopt: Adopt) -> None:
    """Broken: a version variable is replaced by its value, so that changing the variable has no effect."""
    changed, _ = adopt("variables: {PY: '3.12'}\n" + job("python:${PY}-slim-bookworm"))
    assert changed.splitlines()[1] == "+  image: $CI_REGISTRY_IMAGE/ci:${PY}-bookworm-slim"


def test_variable_with_more_than_the_version_is_replaced(adopt: Adopt) -> None:
    """Broken: a tag contains a variable whose value is not part of a cell's name, or an unused variable stays."""
    text = "variables:\n  WHICH: python:3.12-alpine\n  LEVEL: debug\n" + job("$WHICH")
    assert (
        adopt(text)[0]
        == """\
-  WHICH: python:3.12-alpine
-  image: $WHICH
+  image: $CI_REGISTRY_IMAGE/ci:3.12-alpine
"""
    )


def test_job_variable_overrides_the_global_one(adopt: Adopt) -> None:
    """Broken: an image is chosen by a value that the job overrides."""
    changed, _ = adopt("variables: {PY: '3.9'}\n" + job("python:$PY-alpine", "variables:\n  PY: '3.13'"))
    assert "+  image: $CI_REGISTRY_IMAGE/ci:$PY-alpine\n" in changed


def test_number_that_yaml_shortens(adopt: Adopt) -> None:
    """Broken: an unquoted 3.10, which GitLab reads as 3.1, counts as Python 3.10."""
    text = "variables:\n  PY: 3.10\n" + job("python:$PY-alpine")
    changed, remarks = adopt(text, MATRIX.replace('"3.12"', '"3.10"'))
    assert changed == ""
    assert "has Python 3.1;" in remarks


def test_prefilled_variable(adopt: Adopt) -> None:
    """Broken: a variable with a description is not understood, or its options without a cell are ignored."""
    head = "variables:\n  PY:\n    value: '3.12'\n    description: which\n"
    assert "ci:$PY-alpine" in adopt(head + job("python:$PY-alpine"))[0]
    changed, remarks = adopt(head + "    options: ['3.12', '3.8']\n" + job("python:$PY-alpine"))
    assert changed == ""
    assert 'add "3.8"' in remarks


def test_parallel_matrix_with_a_cell_for_each_combination(adopt: Adopt) -> None:
    """Broken: variables of parallel:matrix are ignored."""
    matrix = "parallel:\n  matrix:\n    - PY: ['3.12', '3.13']\n      BASE: [alpine, bookworm-slim]"
    changed, _ = adopt(job("ghcr.io/astral-sh/uv:python$PY-$BASE", matrix))
    assert "+  image: $CI_REGISTRY_IMAGE/ci:$PY-$BASE\n" in changed


@pytest.mark.parametrize(
    ("image", "values", "words"),
    [
        ("python:$PY-alpine", "['3.12', '3.9']", 'add "3.9"'),
        (
            "$PY",
            "['python:3.12-alpine', 'python:3.13-alpine']",
            "use one variable for the Python version and one for the base",
        ),
    ],
)
def test_parallel_matrix_that_the_cells_do_not_cover(adopt: Adopt, image: str, values: str, words: str) -> None:
    """Broken: one combination of parallel:matrix gets an image that does not exist."""
    changed, remarks = adopt(job(image, f"parallel:\n  matrix:\n    - PY: {values}"))
    assert changed == ""
    assert words in remarks


def test_variable_that_rules_set(adopt: Adopt) -> None:
    """Broken: a value that only a rule sets leads to an image that does not exist."""
    rules = "variables:\n  PY: '3.12'\nrules:\n  - if: $OLD\n    variables:\n      PY: '3.8'\n  - when: always"
    changed, remarks = adopt(job("python:$PY-alpine", rules))
    assert changed == ""
    assert 'add "3.8"' in remarks
