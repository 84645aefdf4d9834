"""`--branch`: a merge request has its own tags, which no other jobs see, and which are deleted after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.conftest import own_name
from tests.integration.nightly import Nightly, standing
from tests.integration.registries import Registry, an_open_registry
from tests.integration.seeds import Seeds, published_once

pytestmark = pytest.mark.integration

__all__ = ["an_open_registry", "published_once"]

ONE = ("--only", "python=3.13")
MINE = ("--branch", "Feature/Idna")
TAG, BRANCH_TAG = "3.13-slim", "3.13-slim-feature-idna"


@pytest.fixture
def nightly(seeds: Seeds, open_registry: Registry, tmp_path: Path, request: pytest.FixtureRequest) -> Nightly:
    """The project with its own repository and one published cell."""
    made = Nightly(folder=tmp_path, repository=f"{open_registry.host}/{own_name(request)}", env={})
    made.lock(idna="3.9")
    made.matrix()
    seeds.publish(made, *ONE, tags=[TAG])
    return made


def named(nightly: Nightly, *tags: str) -> dict[str, str | None]:
    """The digests of tags in the project's repository."""
    host, _, path = nightly.repository.partition("/")
    return standing(host, path, tags)


def test_branch_moves_its_own_tags_alone(nightly: Nightly) -> None:
    """Broken: a merge request changes the images of everybody's jobs, or is built again after the merge."""
    before = named(nightly, TAG)
    nightly.lock(idna="3.10")
    planned = nightly.builder("plan", *ONE, *MINE)
    assert "idna: 3.9 → 3.10" in planned.stdout  # against the project's own image, for the branch has none
    assert nightly.outcomes(*ONE, *MINE) == {TAG: "pushed"}
    after = named(nightly, TAG, BRANCH_TAG)
    assert after[TAG] == before[TAG]
    assert after[BRANCH_TAG] not in {None, before[TAG]}
    assert nightly.outcomes(*ONE, *MINE) == {TAG: "up-to-date"}
    # Merged: the image is there, and only the tag moves.
    assert nightly.outcomes(*ONE) == {TAG: "up-to-date"}
    assert named(nightly, TAG) == {TAG: after[BRANCH_TAG]}


def test_rollback_leaves_branches_alone(nightly: Nightly, seeds: Seeds) -> None:
    """Broken: a rollback on the default branch undoes a merge request's promotion instead of its own."""
    first = named(nightly, TAG)[TAG]
    nightly.lock(idna="3.10")
    seeds.publish(nightly, *ONE, tags=[TAG])
    nightly.lock(idna="3.11")
    seeds.publish(nightly, *ONE, *MINE, tags=[TAG])
    mine = named(nightly, BRANCH_TAG)
    done = nightly.builder("rollback")
    assert done.returncode == 0, done.stderr
    assert named(nightly, TAG, BRANCH_TAG) == {TAG: first, **mine}


def test_prune_forgets_a_branch_that_is_done(nightly: Nightly, seeds: Seeds) -> None:
    """Broken: images of merge requests accumulate, or are deleted while a pipeline uses them."""
    nightly.lock(idna="3.10")
    seeds.publish(nightly, *ONE, *MINE, tags=[TAG])
    nightly.lock(idna="3.9")
    journal = "builder-journal-feature-idna"
    assert nightly.builder("prune", "--hours", "0").stdout == ""
    assert len(nightly.builder("prune", "--hours", "0", "--branch-days", "0").stdout.split()) == 2
    done = nightly.builder("prune", "--hours", "0", *MINE, "--delete")
    assert done.returncode == 0, done.stderr
    assert named(nightly, BRANCH_TAG, journal) == {BRANCH_TAG: None, journal: None}
    assert named(nightly, TAG)[TAG] is not None
    assert nightly.builder("prune", "--hours", "0", *MINE).stdout == ""


def test_prune_keeps_a_branchs_image_that_others_use(nightly: Nightly, seeds: Seeds) -> None:
    """Broken: deleting a merged branch's images deletes those of the default branch."""
    nightly.lock(idna="3.10")
    seeds.publish(nightly, *ONE, *MINE, tags=[TAG])
    seeds.publish(nightly, *ONE, tags=[TAG])
    before = named(nightly, TAG, BRANCH_TAG)
    assert nightly.builder("prune", "--hours", "0", *MINE, "--delete").stdout == ""
    assert named(nightly, TAG, BRANCH_TAG) == before
    # The branch stays known until its image is nobody's, and then goes with it.
    nightly.lock(idna="3.11")
    seeds.publish(nightly, *ONE, tags=[TAG])
    nightly.builder("prune", "--hours", "0", *MINE, "--keep", "0", "--delete")
    assert named(nightly, BRANCH_TAG, "builder-journal-feature-idna") == dict.fromkeys(
        (BRANCH_TAG, "builder-journal-feature-idna")
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("0123456789ab", "its tags could be mistaken for others"),
        ("0123456789ab-unverified", "its tags could be mistaken for others"),
        ("---", "its tags could be mistaken for others"),
        ("two", "its tag 3.13-slim-two is already in the matrix"),
    ],
)
def test_branch_that_would_be_taken_for_something_else(tmp_path: Path, name: str, says: str) -> None:
    """Broken: a branch's name moves a tag that other jobs use."""
    nightly = Nightly(folder=tmp_path, repository="registry.invalid/ci", env={})
    nightly.lock()
    nightly.matrix(extra='aliases = { "3.13-slim-two" = "3.13-slim" }')
    done = nightly.builder("plan", "--branch", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--branch '{name}': {says}" in done.stderr
    assert "mr-42" in done.stderr
