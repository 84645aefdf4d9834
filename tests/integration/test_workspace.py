"""Workspaces: the members, or the groups, whose dependencies are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builder.errors import LockError, UsageError
from builder.lock.select import select
from builder.request import Project, Request, read_checkout, read_project
from builder.verify.checkout import Checkout
from tests.cells import debian
from tests.matrices import SMALL
from tests.uv_locks import package

pytestmark = pytest.mark.usefixtures("clean_environment")

ROOT = """\
[project]
name = "root"
version = "1.0"
requires-python = ">=3.8"
dependencies = ["one"]

[dependency-groups]
lint = ["linter"]

[tool.uv.workspace]
members = ["api", "web"]
"""
MEMBER = """\
[project]
name = "{name}"
version = "1.0"
requires-python = ">=3.8"
dependencies = ["{dependency}"]
"""
LOCK = """\
version = 1
revision = 3
requires-python = ">=3.8"

[manifest]
members = ["api", "root", "web"]

[[package]]
name = "root"
version = "1.0"
source = { virtual = "." }
dependencies = [{ name = "one" }]

[package.dev-dependencies]
lint = [{ name = "linter" }]

[package.metadata]
requires-dist = [{ name = "one" }]

[package.metadata.requires-dev]
lint = [{ name = "linter" }]
"""
LOCKED_MEMBER = """\
[[package]]
name = "{name}"
version = "1.0"
source = {{ virtual = "{name}" }}
dependencies = [{{ name = "{dependency}" }}]

[package.metadata]
requires-dist = [{{ name = "{dependency}" }}]
"""
MEMBERS = {"api": "server", "web": "template"}


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace of a root and two members, each with a dependency, as the working directory."""
    (tmp_path / "pyproject.toml").write_text(ROOT, encoding="utf-8")
    entries = [LOCK]
    for name, dependency in MEMBERS.items():
        (tmp_path / name).mkdir()
        text = MEMBER.format(name=name, dependency=dependency)
        (tmp_path / name / "pyproject.toml").write_text(text, encoding="utf-8")
        entries.append(LOCKED_MEMBER.format(name=name, dependency=dependency))
    entries += [package(name) for name in ("linter", "one", "server", "template")]
    (tmp_path / "uv.lock").write_text("\n".join(entries), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(project: Project) -> list[str]:
    """The packages that are installed."""
    return [each.name for each in select(project.lock, debian()).packages]


@pytest.mark.parametrize(
    ("options", "install", "packages", "flags"),
    [
        ({}, "", ["one"], ""),
        ({"packages": ("api",)}, "", ["server"], "--package api"),
        ({"packages": ("api", "web")}, "", ["server", "template"], "--package api --package web"),
        ({"all_packages": True}, "", ["one", "server", "template"], "--all-packages"),
        ({"only_groups": ("lint",)}, 'groups = ["lint"]', ["linter"], "--only-group lint"),
        ({}, 'packages = ["web"]', ["template"], "--package web"),
        ({}, 'packages = "all"', ["one", "server", "template"], "--all-packages"),
        ({}, 'only-groups = ["lint"]', ["linter"], "--only-group lint"),
        ({"packages": ("api",)}, 'packages = "all"', ["server"], "--package api"),
    ],
)
def test_chosen_members(
    workspace: Path, options: dict[str, Any], install: str, packages: list[str], flags: str
) -> None:
    """Broken: the image has the packages of other members, or a job, prebuilt-status and verify use another choice."""
    (workspace / "matrix.toml").write_text(f"{SMALL}[install]\n{install}\n", encoding="utf-8")
    project = read_project(Request(**options))
    assert names(project) == packages
    assert " ".join(project.lock.uv_flags) == flags
    assert Checkout.of(project.lock).lock.uv_flags == project.lock.uv_flags


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "in the images: root; not: api, web"),
        ({"packages": ("api",)}, "in the images: api; not: root, web"),
        ({"only_groups": ("lint",)}, "in the images: none; not: api, root, web"),
    ],
)
def test_plan_says_which_members_are_in(options: dict[str, Any], words: str) -> None:
    """Broken: members are left out without a word."""
    assert [note for note in read_project(Request(**options)).notes if words in note]


def test_all_members_need_no_note() -> None:
    """Broken: builder speaks of members that are left out when none is."""
    assert not [note for note in read_project(Request(all_packages=True)).notes if "members" in note]


def test_root_that_is_no_project(workspace: Path) -> None:
    """Broken: builder says that all members are left out, where uv takes all of them."""
    (workspace / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["api", "web"]\n', encoding="utf-8")
    lock = workspace / "uv.lock"
    head, *entries = lock.read_text(encoding="utf-8").replace('"root", ', "").split("[[package]]")
    lock.write_text("[[package]]".join([head, *entries[1:]]), encoding="utf-8")
    project = read_project(Request())
    assert names(project) == ["server", "template"]
    assert not [note for note in project.notes if "members" in note]


def test_unknown_member() -> None:
    """Broken: a mistyped member is ignored, or users must look up which ones exist."""
    with pytest.raises(LockError, match="aip") as raised:
        read_project(Request(packages=("aip",)))
    assert raised.value.hint == "fix install.packages in the matrix, or --package; members: api, root, web"


def test_options_that_contradict_each_other() -> None:
    """Broken: one of two contradicting options is ignored."""
    with pytest.raises(UsageError, match="--package with --all-packages"):
        read_project(Request(packages=("api",), all_packages=True))


def test_child_pipelines_choose_the_same() -> None:
    """Broken: the jobs of a child pipeline build other packages than those that were planned."""
    options = Request(packages=("api", "web"), only_groups=("lint",), all_packages=True).options
    assert options == ("--package", "api", "--package", "web", "--only-group", "lint", "--all-packages")


def test_verify_alone(workspace: Path) -> None:
    """Broken: `builder verify` syncs other members than those of the matrix."""
    (workspace / "matrix.toml").write_text(f'{SMALL}[install]\npackages = ["api"]\n', encoding="utf-8")
    checkout = read_checkout(None, None)
    assert checkout is not None
    assert checkout.lock.uv_flags == ("--package", "api")
