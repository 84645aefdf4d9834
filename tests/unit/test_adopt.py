"""`builder ci adopt`: the changes to a `.gitlab-ci.yml`, and the remarks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.commandline import Ended, builder
from tests.gitlab import MATRIX, WAYS

Adopt = Callable[..., tuple[str, str]]


@pytest.fixture
def adopt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Adopt:
    """Adopt a text: return the changed lines of the diff, without context, and the remarks."""

    def run(text: str, matrix: str = MATRIX) -> tuple[str, str]:
        ended = _run(tmp_path, monkeypatch, text, matrix)
        assert ended.exit_code == 0, ended.stderr
        lines = ended.stdout.splitlines(keepends=True)
        assert "".join(lines[:2]) in {"", "--- a/.gitlab-ci.yml\n+++ b/.gitlab-ci.yml\n"}
        _assert_valid(text, _applied(text, ended.stdout))
        return "".join(line for line in lines[2:] if line[0] in "+-"), ended.stderr

    return run


def _run(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, matrix: str = MATRIX) -> Ended:
    monkeypatch.chdir(folder)
    (folder / ".gitlab-ci.yml").write_bytes(text.encode())
    (folder / "matrix.toml").write_text(matrix, encoding="utf-8")
    ended = builder("ci", "adopt")
    assert (folder / ".gitlab-ci.yml").read_bytes() == text.encode()
    return ended


def _applied(text: str, diff: str) -> str:
    """Apply a unified diff to a text."""
    old, position = re.findall(r"[^\n]*\n|[^\n]+\Z", text), 0
    new: list[str] = []
    before = ""
    for line in re.findall(r"[^\n]*\n", diff)[2:]:
        if hunk := re.match(r"@@ -(\d+)", line):
            start = int(hunk[1]) - 1
            new += old[position:start]
            position = start
        elif line[0] == "\\":
            new[-1:] = [new[-1].removesuffix("\n")] if before[0] != "-" else new[-1:]
        elif line[0] == "+":
            new.append(line[1:])
        else:
            assert old[position].removesuffix("\n") == line[1:].removesuffix("\n")
            new += [old[position]] if line[0] == " " else []
            position += 1
        before = line
    return "".join(new + old[position:])


class _Reference(tuple[str, ...]):
    """The path of a `!reference`."""


class _Loader(yaml.SafeLoader):
    """A YAML loader that knows `!reference`."""


def _reference(loader: _Loader, node: yaml.Node) -> _Reference:
    assert isinstance(node, yaml.SequenceNode)
    return _Reference(loader.construct_sequence(node))


_Loader.add_constructor("!reference", _reference)


def _resolved(value: Any, root: Any, seen: tuple[_Reference, ...] = ()) -> Any:
    """A value with its references resolved, which GitLab's schema does not know; a circular one becomes a text."""
    if isinstance(value, _Reference):
        target = root
        for key in value:
            target = target[key]
        return "circular" if value in seen else _resolved(target, root, (*seen, value))
    if isinstance(value, dict):
        return {key: _resolved(item, root, seen) for key, item in value.items()}
    return [_resolved(item, root, seen) for item in value] if isinstance(value, list) else value


def _assert_valid(before: str, after: str) -> None:
    """Validate a file with GitLab's schema, before and after the change."""
    schema: Any = json.loads((files("check_jsonschema") / "builtin_schemas/vendor/gitlab-ci.json").read_bytes())
    validator = jsonschema.Draft7Validator(schema)
    for text in (before, after):
        document = list(yaml.load_all(text, Loader=_Loader))[-1]
        resolved = _resolved(document, document)
        assert validator.is_valid(resolved), next(validator.iter_errors(resolved)).message


# Four common ways to install dependencies


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


@pytest.mark.parametrize("name", ["pip-cache-and-venv", "pip-on-a-long-lived-machine", "uv-cache", "uv-system-python"])
def test_examples(name: str, repository_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: the pipelines in examples/gitlab differ from the output of `builder ci adopt`."""
    folder = repository_root / "examples/gitlab" / name
    before, after, matrix = (
        (folder / each).read_text(encoding="utf-8")
        for each in ("before.gitlab-ci.yml", "after.gitlab-ci.yml", "matrix.toml")
    )
    assert _applied(before, _run(tmp_path, monkeypatch, before, matrix).stdout) == after


@pytest.mark.parametrize("way", WAYS)
def test_adopting_again_changes_nothing(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: adopting an adopted file changes it again."""
    first = _run(tmp_path, monkeypatch, WAYS[way])
    again = _run(tmp_path, monkeypatch, _applied(WAYS[way], first.stdout))
    assert (again.exit_code, again.stdout) == (0, "")
    assert "builder: nothing to change in .gitlab-ci.yml" in again.stderr


# Images


def job(image: str, *more: str) -> str:
    """A file with one job, which installs and tests."""
    lines = [f"  {line}\n" for each in more for line in each.splitlines()]
    return f"test:\n  image: {image}\n{''.join(lines)}  script:\n    - uv sync --frozen\n    - pytest\n"


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


# Variables in images


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


# What jobs inherit


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
    assert ".gitlab-ci.yml:4: test: left alone: it extends .python, which this file does not define" in remarks


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


# Lines of scripts

PYTHON = "test:\n  image: $CI_REGISTRY_IMAGE/ci:3.12-alpine\n"


def script(*lines: str) -> str:
    """A file with one job, already on a baked image, with these lines and one more."""
    return PYTHON + "  script:\n" + "".join(f"    - {line}\n" for line in (*lines, "pytest"))


@pytest.mark.parametrize(
    "line",
    [
        "python -m venv venv",
        "python3.12 -m venv --clear .venv",
        "python3 -m virtualenv $CI_PROJECT_DIR/env",
        "virtualenv -p python3.12 venv",
        "uv venv",
        "uv venv --python 3.12 .venv",
        '"uv venv"  # ours',
        "source venv/bin/activate",
        ". ./.venv/bin/activate",
        '. "$CI_PROJECT_DIR/venv/bin/activate"',
        "pip install --upgrade virtualenv",
        "python -m pip install -q virtualenv",
        "pip install uv",
        "pip3 install uv==0.8.1",
        "pipx install uv",
        "curl -LsSf https://astral.sh/uv/install.sh | sh",
        "curl -LsSf https://astral.sh/uv/0.8.1/install.sh | env UV_INSTALL_DIR=/usr/bin sh",
        "wget -qO- https://astral.sh/uv/install.sh | sh",
        "source $HOME/.local/bin/env",
        "uv python install 3.12",
        "uv cache prune --ci",
        "uv cache clean",
        "export UV_CACHE_DIR=.uv-cache",
        "export VIRTUAL_ENV=.venv",
    ],
)
def test_lines_that_are_removed(adopt: Adopt, line: str) -> None:
    """Broken: a line stays that hides the baked environment, empties the cache, or repeats the image's work."""
    assert adopt(script(line, "uv sync"))[0] == f"-    - {line}\n"


@pytest.mark.parametrize(
    "line",
    [
        "uv sync --frozen || uv sync",
        "pip install -r requirements.txt",
        "python3 -m pip install --upgrade pip",
        "pip install virtualenv tox",
        "pip install uvicorn",
        "uv pip install rdflib",
        "uv cache prune",
        "uv cache dir",
        "source ./env.sh",
        "export PATH=$PATH:/opt/bin",
        "rm -rf venv",
        "flake8 --exclude venv/",
        "python -m build",
        "echo 'python -m venv venv'",
        "curl -fsS https://example.com/install.sh | sh",
    ],
)
def test_lines_that_stay(adopt: Adopt, line: str) -> None:
    """Broken: an unrelated line is removed."""
    assert adopt(script(line)) == ("", "builder: nothing to change in .gitlab-ci.yml\n")


@pytest.mark.parametrize(
    ("line", "becomes"),
    [
        ("venv/bin/pytest -q", "pytest -q"),
        ("'./venv/bin/python -m mypy .'", "'python -m mypy .'"),
        ("$CI_PROJECT_DIR/venv/bin/pip install -r requirements.txt", "pip install -r requirements.txt"),
    ],
)
def test_programs_by_path(adopt: Adopt, line: str, becomes: str) -> None:
    """Broken: a line starts a program in an environment that is not created any more."""
    changed = adopt(script("python -m venv venv", line))[0]
    assert changed == f"-    - python -m venv venv\n-    - {line}\n+    - {becomes}\n"


@pytest.mark.parametrize(
    "line",
    [
        "python -m venv venv && . venv/bin/activate",
        "|\n      set -e\n      . venv/bin/activate",
        "test -x venv/bin/python",
        "cd web && ../venv/bin/pytest",
        "ls venv/lib/python3.12/site-packages",
        "coverage run --source venv/lib/x -m pytest",
    ],
)
def test_environment_with_a_line_that_cannot_be_edited(adopt: Adopt, line: str) -> None:
    """Broken: only some lines of an environment are removed, or its cache, so that the job fails."""
    text = PYTHON + "  cache: {paths: [venv, .cache/pip]}\n  script:\n"
    text += f"    - python -m venv venv\n    - source venv/bin/activate\n    - {line}\n"
    changed, remarks = adopt(text)
    assert changed == ""
    number = 9 if line.startswith("|") else 7
    assert f".gitlab-ci.yml:{number}: test: left alone, with all lines for venv: " in remarks
    assert "what it stores stays: test keeps its own environment" in remarks


@pytest.mark.parametrize(
    ("line", "number", "words"),
    [
        (
            "uv sync && uv cache prune --ci",
            4,
            "remove `uv cache prune --ci` by hand, because it would empty the warm cache",
        ),
        ("|\n      uv sync\n      uv cache prune --ci", 6, "remove `uv cache prune --ci` by hand"),
        ("pip install uv; uv sync", 4, "remove `pip install uv` by hand, because the image already has uv"),
    ],
)
def test_commands_inside_longer_lines(adopt: Adopt, line: str, number: int, words: str) -> None:
    """Broken: a line with several commands is changed, or there is no remark about the command to remove."""
    changed, remarks = adopt(script(line))
    assert changed == ""
    assert f".gitlab-ci.yml:{number}: test: left alone: {words}" in remarks


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("cd web && ../.venv/bin/pytest", "needs ../.venv, which does not exist in a baked image"),
        (
            "uv venv --python 3.12 && uv sync",
            "`uv venv --python 3.12` would replace the baked environment; remove it",
        ),
        ("uv venv && uv sync", "`uv venv` would replace the baked environment; remove it"),
        (
            "uv sync && . .venv/bin/activate",
            "`. .venv/bin/activate` needs .venv, which does not exist in a baked image",
        ),
        ("uv sync && .venv/bin/pytest", "which does not exist in a baked image; write `pytest`"),
        (
            "pip install --user -r requirements.txt",
            "`pip install --user` fails in a virtual environment; remove --user",
        ),
    ],
)
def test_job_that_would_fail_on_a_baked_image(adopt: Adopt, line: str, words: str) -> None:
    """Broken: a job gets a baked image although one of its lines fails on it."""
    text = f"test:\n  image: python:3.12-alpine\n  cache: {{paths: [.venv]}}\n  script:\n    - {line}\n"
    changed, remarks = adopt(text)
    assert changed == ""
    assert remarks.startswith(".gitlab-ci.yml:5: test: left alone, and so is its image python:3.12-alpine: ")
    assert words in remarks


def test_environment_that_stays_and_uv(adopt: Adopt) -> None:
    """Broken: uv installs into the baked environment, but the job uses its own."""
    text = """\
test:
  image: python:3.12-alpine
  script:
    - python -m venv venv
    - set -e; . venv/bin/activate
    - uv pip install -r requirements.txt
    - pytest
"""
    changed, remarks = adopt(text)
    assert changed == ""
    assert (
        ".gitlab-ci.yml:5: test: left alone, and so is its image python:3.12-alpine: change `. venv/bin/activate`"
        in remarks
    )
    assert (
        ".gitlab-ci.yml:6: test: left alone, and so is its image python:3.12-alpine: `uv pip` uses the baked" in remarks
    )
    assert "image" in adopt(text.replace("uv pip", "pip"))[0]


def test_program_by_path_in_the_environment_of_uv(adopt: Adopt) -> None:
    """Broken: after `uv sync`, the job does not find `.venv/bin/pytest`, which does not exist in a baked image."""
    changed, _ = adopt(job("python:3.12-alpine").replace("- pytest", "- .venv/bin/pytest"))
    assert changed.splitlines()[2:] == ["-    - .venv/bin/pytest", "+    - pytest"]


@pytest.mark.parametrize("path", ["smoke-env", "/tmp/wheel"])
def test_separate_environment(adopt: Adopt, path: str) -> None:
    """Broken: a job that tests a wheel in a separate environment tests it in the baked one."""
    lines = (f"uv venv {path}", f"uv pip install --python {path} dist/app.whl", f"{path}/bin/python -c 'import app'")
    changed, remarks = adopt(
        job("python:3.12-alpine").replace("    - pytest", "".join(f"    - {each}\n" for each in lines))
    )
    assert [line for line in changed.splitlines() if "image" not in line] == []
    assert f"test: left alone, with all lines for {path}: its name suggests a separate environment" in remarks
    entering = script(f"python -m venv {path} && . {path}/bin/activate", "pip install app")
    assert adopt(entering)[0] == ""


def test_deactivate(adopt: Adopt) -> None:
    """Broken: a job fails because it leaves an environment that it never entered."""
    changed, _ = adopt(script("python -m venv venv", ". venv/bin/activate", "pip install -r r.txt", "deactivate"))
    assert changed == "-    - python -m venv venv\n-    - . venv/bin/activate\n-    - deactivate\n"


def test_job_that_does_nothing_else(adopt: Adopt) -> None:
    """Broken: a job loses its whole script, so that GitLab rejects the file."""
    text = PYTHON + "  script:\n    - python -m venv venv\n    - . venv/bin/activate\n"
    changed, remarks = adopt(text)
    assert changed == "-    - . venv/bin/activate\n"
    assert "left alone: the script of test would be empty; you can delete the job" in remarks


def test_only_line_of_a_script(adopt: Adopt) -> None:
    """Broken: a job whose script is only `uv cache prune --ci` loses it."""
    changed, remarks = adopt(PYTHON + "  script:\n    - uv cache prune --ci\n")
    assert changed == ""
    assert "left alone: the script of test would be empty; remove `uv cache prune --ci` by hand" in remarks


def test_script_as_a_single_text(adopt: Adopt) -> None:
    """Broken: a script that is a text, not a list, is removed as a whole."""
    changed, remarks = adopt(PYTHON + "  after_script: uv cache prune --ci\n  script: uv sync\n")
    assert changed == ""
    assert "left alone: remove `uv cache prune --ci` by hand" in remarks


def test_before_script_that_overrides_the_global_one(adopt: Adopt) -> None:
    """Broken: a job loses its before_script, so that the global one applies."""
    text = f"before_script:\n  - apk add git\n{PYTHON}  before_script:\n    - uv cache clean\n  script: uv sync\n"
    changed, remarks = adopt(text)
    assert changed == ""
    assert "without it, the before_script in line 1 would apply to test" in remarks


def test_lines_that_jobs_share(adopt: Adopt) -> None:
    """Broken: a line is removed although a job on another image needs it."""
    text = """\
.setup: &setup
  - python -m venv venv
  - . venv/bin/activate
new:
  image: python:3.12-alpine
  script:
    - *setup
    - pip install -r requirements.txt
old:
  image: python:3.9
  script:
    - *setup
    - pip install -r requirements.txt
"""
    changed, remarks = adopt(text)
    assert changed == "-  image: python:3.12-alpine\n+  image: $CI_REGISTRY_IMAGE/ci:3.12-alpine\n"
    assert "the lines for venv stay: jobs that do not run on a baked image need them too (old)" in remarks
    changed, _ = adopt(text.replace("3.9", "3.13-alpine"))
    assert changed.count("-    - *setup\n") == 2
    assert "-.setup: &setup\n-  - python -m venv venv\n-  - . venv/bin/activate\n" in changed


def test_environment_that_a_job_on_another_image_creates(adopt: Adopt) -> None:
    """Broken: jobs no longer enter the environment that an init job on another image creates for them."""
    text = """\
init:
  image: python:3.9
  script: [python -m venv venv]
  artifacts: {paths: [venv]}
test:
  image: python:3.12-alpine
  script:
    - . venv/bin/activate
    - pytest
"""
    changed, remarks = adopt(text)
    assert "activate" not in changed
    assert "the lines for venv stay: jobs that do not run on a baked image need them too (init)" in remarks


# Caches and artifacts


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
    text = PYTHON + "  cache:\n    key: x\n    {}\n  script: uv sync\n"
    expected = f"-    {before}\n+    {after}\n" if before != after else ""
    assert adopt(text.format(before))[0] == expected


def test_cache_folder_with_pips_cache(adopt: Adopt) -> None:
    """Broken: `.cache` is removed although it also contains pre-commit's environments, or stays if it does not."""
    text = (
        PYTHON
        + "  variables:\n    PIP_CACHE_DIR: .cache/pip\n{}  cache:\n    paths:\n      - .cache/\n  script: uv sync\n"
    )
    assert adopt(text.format(""))[0].endswith("-  cache:\n-    paths:\n-      - .cache/\n")
    changed, _ = adopt(text.format("    PRE_COMMIT_HOME: .cache/pre-commit\n"))
    assert changed == "-    PIP_CACHE_DIR: .cache/pip\n"


def test_untracked_files_stay_in_the_cache(adopt: Adopt) -> None:
    """Broken: a cache of untracked files is removed together with its paths."""
    text = PYTHON + "  cache:\n    untracked: true\n    paths:\n      - .venv\n  script: uv sync\n"
    assert adopt(text)[0] == "-    paths:\n-      - .venv\n"


def test_cache_in_brackets_over_several_lines(adopt: Adopt) -> None:
    """Broken: a list in brackets loses a comma or a comment that it needs."""
    text = (
        PYTHON
        + "  cache:\n    paths: [\n      .venv,  # uv's\n      .ruff_cache,  # ruff's\n    ]\n  script: uv sync\n"
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
    assert ".gitlab-ci.yml:1: new: what it stores stays: old does not run on a baked image" in remarks
    assert ".gitlab-ci.yml:3: PIP_CACHE_DIR stays: old does not run on a baked image" in remarks


def test_environment_in_artifacts(adopt: Adopt) -> None:
    """Broken: an environment in artifacts hides the baked one, or reports are removed with it."""
    text = (
        PYTHON
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


# Variables


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
    changed, _ = adopt(f"variables:\n  LEVEL: debug\n  {line}\n{PYTHON}  script: uv sync\n")
    assert changed == f"-  {line}\n"
    changed, _ = adopt(f"{PYTHON}  variables:\n    {line}\n  script: uv sync\n")
    assert changed == f"-  variables:\n-    {line}\n"


@pytest.mark.parametrize(
    "line",
    ["PIP_CACHE_DIR: /cache/pip", "UV_SYSTEM_PYTHON: 1", "UV_PROJECT_ENVIRONMENT: /opt/uv/venv", "UV_INDEX_URL: x"],
)
def test_variables_that_stay(adopt: Adopt, line: str) -> None:
    """Broken: a variable is removed although it does not conflict with the image."""
    assert adopt(f"variables:\n  {line}\n{PYTHON}  script: uv sync\n")[0] == ""


def test_variable_in_use(adopt: Adopt) -> None:
    """Broken: a variable is removed although a script still uses it."""
    text = f"variables:\n  PIP_CACHE_DIR: .pip\n{PYTHON}  script:\n    - du -s $PIP_CACHE_DIR\n    - uv sync\n"
    changed, remarks = adopt(text)
    assert changed == ""
    assert ".gitlab-ci.yml:2: PIP_CACHE_DIR stays: line 6 uses it" in remarks


def test_variable_that_only_a_removed_one_used(adopt: Adopt) -> None:
    """Broken: a variable stays although only removed lines used it."""
    text = f"variables:\n  ROOT: .cache\n  UV_CACHE_DIR: $ROOT/uv\n{PYTHON}  script: uv sync\n"
    assert adopt(text)[0] == "-variables:\n-  ROOT: .cache\n-  UV_CACHE_DIR: $ROOT/uv\n"
    changed, remarks = adopt(f"include: {{local: x.yml}}\n{text}")
    assert changed == "-  UV_CACHE_DIR: $ROOT/uv\n"
    assert "ROOT stays: nothing in this file uses it any more, but an included file might" in remarks


def test_uv_python_with_a_version(adopt: Adopt) -> None:
    """Broken: UV_PYTHON, which may select another interpreter on purpose, is removed, or there is no remark."""
    changed, remarks = adopt(f"variables:\n  UV_PYTHON: '3.12'\n{PYTHON}  script: uv sync\n")
    assert changed == ""
    assert ".gitlab-ci.yml:2: UV_PYTHON stays: it may be intended; without it" in remarks


# The text of the file


def test_crlf_without_a_final_newline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: in a file with CRLF, or without a final newline, unrelated lines change."""
    text = job("python:3.12-alpine", "cache: {paths: [.venv]}").replace("\n", "\r\n").removesuffix("\r\n")
    ended = _run(tmp_path, monkeypatch, text.replace("script:\r\n    - uv sync", "script:\r\n    - uv  sync"))
    after = job("python:3.12-alpine").replace("\n", "\r\n").removesuffix("\r\n").replace("uv sync", "uv  sync")
    after = after.replace("python:3.12", "$CI_REGISTRY_IMAGE/ci:3.12")
    before = text.replace("uv sync", "uv  sync")
    assert _applied(before, ended.stdout) == after
    assert ended.stdout.endswith("     - pytest\n\\ No newline at end of file\n")


def test_last_line_without_a_newline_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: Git rejects the diff if the last line has no newline."""
    text = PYTHON + "  script: uv sync\n  cache: {paths: [.venv]}"
    ended = _run(tmp_path, monkeypatch, text)
    assert ended.stdout.endswith("-  cache: {paths: [.venv]}\n\\ No newline at end of file\n")
    assert _applied(text, ended.stdout) == PYTHON + "  script: uv sync\n"


def test_blank_lines(adopt: Adopt) -> None:
    """Broken: two blank lines remain where the lines between them were removed."""
    text = f"stages: [test]\n\nvariables:\n  UV_LINK_MODE: copy\n\n{PYTHON}  script: uv sync\n"
    assert adopt(text)[0] == "-\n-variables:\n-  UV_LINK_MODE: copy\n"


def test_header_of_a_component(adopt: Adopt) -> None:
    """Broken: a component's header is changed, or the document after it is not found."""
    text = "spec:\n  inputs:\n    stage: {default: test}\n---\n" + job(
        "python:3.12-alpine", "stage: $[[ inputs.stage ]]"
    )
    assert adopt(text)[0] == "-  image: python:3.12-alpine\n+  image: $CI_REGISTRY_IMAGE/ci:3.12-alpine\n"


def test_duplicate_key(adopt: Adopt) -> None:
    """Broken: of two equal keys the one that GitLab ignores is changed, or there is no remark."""
    text = job("python:3.9-alpine").replace("  script", "  image: python:3.12-alpine\n  script")
    changed, remarks = adopt(text)
    assert changed == "-  image: python:3.12-alpine\n+  image: $CI_REGISTRY_IMAGE/ci:3.12-alpine\n"
    assert ".gitlab-ci.yml:2: line 3 defines image again, and GitLab uses that one" in remarks


def test_removal_that_would_activate_a_duplicate(adopt: Adopt) -> None:
    """Broken: the last of two equal keys is removed, so that the first one, which had no effect, applies."""
    changed, remarks = adopt(f"variables:\n  UV_CACHE_DIR: a\n  X: y\n  UV_CACHE_DIR: b\n{PYTHON}  script: uv sync\n")
    assert changed == ""
    assert ".gitlab-ci.yml:4: UV_CACHE_DIR stays: without it, UV_CACHE_DIR in line 2 would apply" in remarks


# Bad input


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"test:\n  script: [\n", "not YAML: "),
        (
            b"a: 1\ntest:\n\tscript: x\n",
            ".gitlab-ci.yml:3: not YAML: found character '\\t' that cannot start any token\n",
        ),
        (b"test: &a\n  image: *b\n", ".gitlab-ci.yml:2: *b has no anchor &b before it"),
        (b"test: &a\n  image: *a\n", ".gitlab-ci.yml:2: *a has no anchor &a before it"),
        (b"a: 1\nb: \x00\n", ".gitlab-ci.yml:2: not YAML: invalid character"),
        (b"a: 1\nb: \xff\n", ".gitlab-ci.yml:2: not UTF-8 text (byte 8)"),
        (b"\n- a\n", ".gitlab-ci.yml:2: not a mapping of jobs"),
        (b"just words\n", ".gitlab-ci.yml:1: not a mapping of jobs"),
        (b"", ".gitlab-ci.yml:1: empty; it contains no jobs"),
        (b"# later\n", ".gitlab-ci.yml:1: empty; it contains no jobs"),
        (b"a: 1\n---\nb: 1\n", ".gitlab-ci.yml:3: unexpected second document"),
        (b"spec: {}\n---\na: 1\n---\nb: 1\n", ".gitlab-ci.yml:5: unexpected second document"),
        (b"a: " + b"[" * 200 + b"]" * 200, ".gitlab-ci.yml:1: nested deeper than 100 levels"),
    ],
)
def test_bad_file(content: bytes, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: an invalid file causes a traceback, or the error does not give the line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".gitlab-ci.yml").write_bytes(content)
    (tmp_path / "matrix.toml").write_text(MATRIX, encoding="utf-8")
    ended = builder("ci", "adopt")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("builder: .gitlab-ci.yml:")
    assert words in ended.stderr
    assert len(ended.stderr.splitlines()) <= 2


def test_missing_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: jobs are moved to the cells of the built-in matrix, or the error does not say what to write."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".gitlab-ci.yml").write_text(job("python:3.12-alpine"), encoding="utf-8")
    ended = builder("ci", "adopt")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("builder: no matrix.toml here\n")
    assert "docs/matrix.md" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.yml"], "cannot read missing.yml: No such file or directory"),
        (["."], "cannot read .: Is a directory"),
        (["-f", "missing.toml"], "cannot read missing.toml: No such file or directory"),
        (["one.yml", "two.yml"], "unexpected extra argument"),
    ],
)
def test_bad_arguments(arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a mistyped file name causes a traceback, or is ignored."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".gitlab-ci.yml").write_text(job("python:3.12-alpine"), encoding="utf-8")
    (tmp_path / "matrix.toml").write_text(MATRIX, encoding="utf-8")
    ended = builder("ci", "adopt", *arguments)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert words in ended.stderr


def test_another_file_and_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: the diff of a named file does not apply at the root of the checkout, or -q prints remarks."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ci").mkdir()
    (tmp_path / "ci/python.yml").write_text(job("python:3.12-alpine", "cache: {paths: [.venv]}"), encoding="utf-8")
    (tmp_path / "images.toml").write_text(MATRIX, encoding="utf-8")
    for name in ("ci/python.yml", "./ci/python.yml", str(tmp_path / "ci/python.yml")):
        ended = builder("ci", "adopt", name, "-f", "images.toml", "-q")
        assert ended.stdout.startswith("--- a/ci/python.yml\n+++ b/ci/python.yml\n@@ ")
        assert (ended.exit_code, ended.stderr) == (0, "")
