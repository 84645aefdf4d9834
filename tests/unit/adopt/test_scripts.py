"""`builder ci adopt`: which lines of scripts it removes, and which it leaves alone."""

from __future__ import annotations

import pytest

from tests.adopting import BAKED, Adopt, job, script


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
    text = BAKED + "  cache: {paths: [venv, .cache/pip]}\n  script:\n"
    text += f"    - python -m venv venv\n    - source venv/bin/activate\n    - {line}\n"
    changed, remarks = adopt(text)
    assert changed == ""
    number = 9 if line.startswith("|") else 7
    assert f".gitlab-ci.yml:{number}: test: left alone, with all lines for venv: " in remarks
    assert "its cache or artifacts stay: test keeps its own environment" in remarks


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
            "cd a && uv venv --python 3.12 && uv sync",
            "`uv venv --python 3.12` would replace the baked environment; remove it",
        ),
        ("cd a && uv venv && uv sync", "`uv venv` would replace the baked environment; remove it"),
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
    text = BAKED + "  script:\n    - python -m venv venv\n    - . venv/bin/activate\n"
    changed, remarks = adopt(text)
    assert changed == "-    - . venv/bin/activate\n"
    assert "left alone: the script of test would be empty; you can delete the job" in remarks


def test_only_line_of_a_script(adopt: Adopt) -> None:
    """Broken: a job whose script is only `uv cache prune --ci` loses it."""
    changed, remarks = adopt(BAKED + "  script:\n    - uv cache prune --ci\n")
    assert changed == ""
    assert "left alone: the script of test would be empty; remove `uv cache prune --ci` by hand" in remarks


def test_script_as_a_single_text(adopt: Adopt) -> None:
    """Broken: a script that is a text, not a list, is removed as a whole."""
    changed, remarks = adopt(BAKED + "  after_script: uv cache prune --ci\n  script: uv sync\n")
    assert changed == ""
    assert "left alone: remove `uv cache prune --ci` by hand" in remarks


def test_before_script_that_overrides_the_global_one(adopt: Adopt) -> None:
    """Broken: a job loses its before_script, so that the global one applies."""
    text = f"before_script:\n  - apk add git\n{BAKED}  before_script:\n    - uv cache clean\n  script: uv sync\n"
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


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("source venv/bin/activate && pytest", "pytest"),
        ("python -m venv venv && . venv/bin/activate && pip install app && pytest", "pip install app && pytest"),
    ],
)
def test_environment_at_the_beginning_of_a_line(adopt: Adopt, before: str, after: str) -> None:
    """Broken: jobs keep passing on an environment because one line enters it and goes on."""
    text = BAKED + f"  artifacts: {{paths: [venv]}}\n  script:\n    - python -m venv venv\n    - {before}\n"
    assert adopt(text)[0] == (
        f"-  artifacts: {{paths: [venv]}}\n-    - python -m venv venv\n-    - {before}\n+    - {after}\n"
    )


def test_environment_in_the_middle_of_a_line(adopt: Adopt) -> None:
    """Broken: `cd`, or a command that depends on another one, is torn out of its line."""
    changed, remarks = adopt(script("python -m venv venv", "cd web && . venv/bin/activate && pytest"))
    assert changed == ""
    assert "with all lines for venv" in remarks


def test_file_that_only_the_installer_of_uv_writes(adopt: Adopt) -> None:
    """Broken: the installer of uv is removed, but the job still sources the file that it writes, and fails."""
    text = (
        f"before_script: [make all]\n{BAKED}  before_script:\n    - curl -LsSf https://astral.sh/uv/install.sh | sh\n"
    )
    text += "    - source $HOME/.local/bin/env\n  script: uv sync\n"
    changed, remarks = adopt(text)
    assert changed == "-    - source $HOME/.local/bin/env\n"
    assert "without it, the before_script in line 1 would apply to test" in remarks
    assert "install.sh" in adopt(text.replace("before_script: [make all]\n", ""))[0]


def test_projects_environment_with_a_name_of_its_own(adopt: Adopt) -> None:
    """Broken: an environment of the project stays because of its name."""
    lines = ("python -m venv myenv", "source myenv/bin/activate")
    changed, _ = adopt(script(*lines, "pip install -r requirements.txt"))
    assert changed == "".join(f"-    - {line}\n" for line in lines)
    assert adopt(script(*lines, "pip install dist/app.whl"))[0] == ""
