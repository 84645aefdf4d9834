"""Profiles: several choices from the same locks, each with its own images; and groups that are only cached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.errors import LockError, MatrixError, UsageError
from builder.gitlab.adopt.cell import Replacement, find_replacement
from builder.gitlab.images import default_cell
from builder.gitlab.pipeline import Commands
from builder.image.render import render
from builder.lock.choice import choose
from builder.lock.model import Lock
from builder.lock.preflight import preflight, preflight_error
from builder.lock.select import select, select_all
from builder.matrix.file import parse_matrix
from builder.matrix.model import Matrix
from builder.matrix.schema import Install
from builder.oci.reference import Digest, ImageRef
from builder.request import Request, read_project
from tests import locks
from tests.cells import debian
from tests.layers import built, chosen, layers_of
from tests.locks import package, pure
from tests.matrices import SMALL
from tests.plans import plan_of

PROFILES = '[profiles.lint]\ngroups = ["lint"]\n[profiles.test]\nextras = "all"\n'
DOCS = "'docs' in dependency_groups"
LINT = "'lint' in dependency_groups"


def matrix_of(text: str) -> Matrix:
    """The small matrix with more."""
    return parse_matrix(SMALL + text, source="matrix.toml")


def names(matrix: Matrix) -> list[str]:
    """The names of the cells, in order."""
    return [cell.name for cell in matrix.cells]


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        (PROFILES, ["3.12-slim-lint", "3.12-slim-test"]),
        ("[install]\n" + PROFILES, ["3.12-slim", "3.12-slim-lint", "3.12-slim-test"]),
    ],
)
def test_profiles_are_an_axis(text: str, cells: list[str]) -> None:
    """Broken: a profile has no images, or [install] loses or gets some without being asked for them."""
    assert names(matrix_of(text)) == cells


def test_each_profile_installs_its_own_choice() -> None:
    """Broken: the images of one profile have what another one, or [install], chooses."""
    matrix = matrix_of('[install]\ngroups = ["dev"]\n' + PROFILES)
    installs = [matrix.install_of(cell.profile) for cell in matrix.cells]
    assert [(install.groups, install.extras) for install in installs] == [
        (("dev",), ()),
        (("lint",), ()),
        ((), "all"),
    ]


@pytest.mark.parametrize(
    ("selector", "cells"),
    [
        ("profile=lint", ["3.12-slim-lint"]),
        ("python=3.12,base=slim,profile=default", ["3.12-slim"]),
        ("base=slim", ["3.12-slim", "3.12-slim-lint", "3.12-slim-test"]),
    ],
)
def test_selection_by_profile(selector: str, cells: list[str]) -> None:
    """Broken: --only builds other cells than those that it names."""
    assert names(matrix_of("[install]\n" + PROFILES).only([selector])) == cells


def test_exclusion_by_profile() -> None:
    """Broken: a profile cannot be left out for one base."""
    text = 'exclude = [{ base = "slim", profile = "lint" }]\n' + SMALL + PROFILES
    assert names(parse_matrix(text, source="m")) == ["3.12-slim-test"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[profiles.default]\n", "profiles.default: is what [install] chooses"),
        ("[profiles.0123456789ab]\n", "profiles.0123456789ab: its tags could be mistaken for immutable ones"),
        (f"[profiles.{'x' * 120}]\n", "too long for a tag with base and key; use at most 101 characters"),
        ('[profiles.a]\nonly-groups = ["a"]\nextras = ["b"]\n', "profiles.a.only-groups: leaves out everything else"),
        ("[profiles.a]\ngroup = 1\n", "profiles.a.group: unknown key (perhaps you meant 'groups'?)"),
        ("[aliases]\nlatest = '3.12-slim'\n[profiles.a]\n", "'3.12-slim' is not a cell"),
    ],
)
def test_wrong_profiles(text: str, words: str) -> None:
    """Broken: a wrong profile is not reported, or not at its place."""
    with pytest.raises(MatrixError) as raised:
        matrix_of(text)
    assert words in str(raised.value)


def test_two_cells_with_one_name() -> None:
    """Broken: two cells move the same tag, and the last one wins."""
    text = 'python = ["3.12"]\nbase = ["slim", "slim-lint"]\n[install]\n[profiles.lint]\n'
    bases = "".join(
        f'[bases.{name}]\nimage = "python:3-bookworm"\nfamily = "debian"\n' for name in ("slim", "slim-lint")
    )
    with pytest.raises(MatrixError, match=r"two cells would be named 3\.12-slim-lint"):
        parse_matrix(text + bases, source="m")


def test_branch_that_begins_like_a_profile() -> None:
    """Broken: branch lint-docs of one image and branch docs of the profile lint move the same tag."""
    with pytest.raises(UsageError, match="mistaken for those of a profile"):
        matrix_of(PROFILES).on_branch("lint-docs")


def test_jobs_of_a_child_pipeline_build_one_cell_each() -> None:
    """Broken: the job of one profile builds the cells of all."""
    matrix = matrix_of("[install]\n" + PROFILES)
    commands = [Commands(options=()).build(cell) for cell in matrix.cells]
    assert [command.rpartition(" ")[2] for command in commands] == [
        "python=3.12,base=slim,profile=default",
        "python=3.12,base=slim,profile=lint",
        "python=3.12,base=slim,profile=test",
    ]
    assert Commands(options=()).build(matrix_of("").cells[0]).endswith(" python=3.12,base=slim")


def test_jobs_that_do_not_choose_get_the_first_profile() -> None:
    """Broken: `.prebuilt` is the image of a special profile, although there is a plain one."""
    assert default_cell(matrix_of("[install]\n" + PROFILES)).name == "3.12-slim"
    assert default_cell(matrix_of(PROFILES)).name == "3.12-slim-lint"


def test_layers_do_not_depend_on_the_profile() -> None:
    """Broken: what two profiles have in common is made, stored and pulled twice."""
    big, cell = chosen("big", size=10**7), debian(packages=("git",))
    plain = layers_of([big, built("sdist")], cell)
    other = layers_of([big, built("sdist"), chosen("six")], replace(cell, profile="lint"))
    assert {layer.key for layer in plain.layers} < {layer.key for layer in other.layers}


@pytest.fixture
def monorepo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two services with a lock each, and a matrix in the folder above them, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("api", "web"):
        (tmp_path / name).mkdir()
        locks.write(tmp_path / name, pure(f"only-{name}"))
    text = "".join(f'[profiles.{name}]\nlock = "{name}/pylock.toml"\n' for name in ("api", "web"))
    (tmp_path / "matrix.toml").write_text(SMALL + text, encoding="utf-8")
    return tmp_path


@pytest.mark.usefixtures("clean_environment")
def test_profiles_with_locks_of_their_own(monorepo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a matrix is for one lock, or an image has the packages of another service."""
    for folder in (monorepo / "web", monorepo):  # a lock is named relative to the matrix
        monkeypatch.chdir(folder)
        selections = select_all(read_project(Request()).locked_cells)
        assert [[each.name for each in selection.packages] for selection in selections] == [["only-api"], ["only-web"]]
    assert list(read_project(Request(only=("profile=web",))).locks) == ["web"]


@pytest.mark.usefixtures("clean_environment")
def test_faults_of_two_locks(monorepo: Path) -> None:
    """Broken: the error names one lock, although another one is at fault."""
    for name in ("api", "web"):
        locks.write(monorepo / name, package(f"only-{name}", "1.0", "cp39-cp39-win_amd64"))
    error = preflight_error(preflight(read_project(Request()).locked_cells))
    assert error is not None
    head, *lines = str(error).splitlines()
    assert "api/pylock.toml and web/pylock.toml do not cover the cells 3.12-slim-api, 3.12-slim-web:" in head
    assert "3.12-slim-web: no wheel found for package 'only-web'" in lines[1]
    with pytest.raises(LockError, match=r"web/pylock\.toml does not cover the cell 3\.12-slim-web"):
        select_all(read_project(Request()).locked_cells)


def test_status_of_a_lock_in_a_folder(base_digest: Digest, uv_digest: Digest, tmp_path: Path) -> None:
    """Broken: prebuilt-status compares an image with the lock of the repository's top, which is another project's."""
    plan = plan_of(tmp_path, SMALL, base_digest=base_digest, uv_digest=uv_digest)
    own = replace(plan, selection=replace(plan.selection, lock_folder="services/api"))
    status = dict(render(own).files)["prebuilt-status"].decode()
    assert "folder=services/api\n" in status
    assert "folder=" not in dict(render(plan).files)["prebuilt-status"].decode()


def cached(folder: Path, *packages: Mapping[str, Any], **install: Any) -> Lock:
    """A lock with the groups docs and lint, of which some are only cached."""
    chosen_ = Install.model_validate({"cache-groups": ("docs", "lint"), **install})
    return locks.read(folder, *packages, install=chosen_, dependency_groups=["docs", "lint"])


def test_cached_groups(tmp_path: Path) -> None:
    """Broken: a cached group is in the environment, or what it needs is not in the cache, or is there twice."""
    sphinx, shared = pure("sphinx", marker=DOCS), pure("shared", marker=f"{DOCS} or {LINT}")
    lock = cached(tmp_path, pure("one"), sphinx, shared, pure("ruff", marker=LINT))
    selection = select(lock, debian())
    assert [each.name for each in selection.packages] == ["one"]
    assert [[each.name for each in group] for group in selection.cached] == [["shared", "sphinx"], ["ruff"]]
    assert selection.download_size == 4000
    assert [each.uv_flags for each in lock.cached] == [("--group", "docs"), ("--group", "lint")]


def test_cached_group_that_is_installed_anyway(tmp_path: Path) -> None:
    """Broken: an installed group gets a second layer."""
    selection = select(cached(tmp_path, pure("sphinx", marker=DOCS), groups=("docs",)), debian())
    assert ([each.name for each in selection.packages], selection.cached) == (["sphinx"], ())


def test_cached_group_that_a_cell_cannot_install(tmp_path: Path) -> None:
    """Broken: the fault is found when the image is built, or by the job that needs the group."""
    lock = cached(tmp_path, pure("one"), package("sphinx", "1.0", "cp39-cp39-win_amd64", marker=DOCS))
    (fault,) = choose(lock, debian()).faults
    assert "no wheel found for package 'sphinx'" in fault.reason
    assert [finding.way for finding in preflight({debian(): lock}).cells[0].findings] == ["wheel", "impossible"]


def test_layer_of_a_cached_group() -> None:
    """Broken: a cached group changes the layers of the environment, or its own layer depends on the base."""
    plain, with_docs = layers_of([chosen("one")]), layers_of([chosen("one")], cached=((chosen("sphinx"),),))
    assert {layer.key for layer in plain.layers} < {layer.key for layer in with_docs.layers}
    (layer,) = [layer for layer in with_docs.layers if layer.kind == "cached"]
    moved = layers_of([chosen("one")], cached=((chosen("sphinx"),),), base=with_other_digest())
    assert layer in moved.layers
    compiled = layers_of([], cached=((built("sphinx"),),))
    assert compiled.layers[-1] not in layers_of([], cached=((built("sphinx"),),), base=with_other_digest()).layers


def with_other_digest() -> ImageRef:
    """The base of the cell, as it is after an update."""
    return debian().image.with_digest(Digest(algorithm="sha256", hex="0" * 64))


@pytest.mark.parametrize(
    ("text", "image"),
    [("[install]\n" + PROFILES, "ci:3.12-slim"), ("[profiles.lint]\n", "ci:3.12-slim-lint"), (PROFILES, None)],
)
def test_adopted_jobs_get_the_plain_image(text: str, image: str | None) -> None:
    """Broken: `ci adopt` gives jobs an image that does not exist, or guesses which profile they need."""
    found = find_replacement("python:3.12-slim-bookworm", [{}], matrix_of(text), "ci")
    assert (found.image if isinstance(found, Replacement) else None) == image
