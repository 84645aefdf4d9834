"""`--branch`: a merge request has tags of its own, which nobody else's jobs see and which go when it is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.conftest import own_name
from tests.integration.nightly import Nightly, Seeds, published_once, standing
from tests.integration.registries import Registry, an_open_registry

pytestmark = pytest.mark.integration

__all__ = ["an_open_registry", "published_once"]

ONE = ("--only", "python=3.13")
MINE = ("--branch", "Feature/Idna")
TAG, BRANCH_TAG = "3.13-slim", "3.13-slim-feature-idna"


@pytest.fixture
def nightly(seeds: Seeds, open_registry: Registry, tmp_path: Path, request: pytest.FixtureRequest) -> Nightly:
    """The project, with a repository of this test's own and one cell of it published."""
    made = Nightly(folder=tmp_path, repository=f"{open_registry.host}/{own_name(request)}", env={})
    made.lock(idna="3.9")
    made.matrix()
    seeds.publish(made, *ONE, tags=[TAG])
    return made


def named(nightly: Nightly, *tags: str) -> dict[str, str | None]:
    """What tags of the project's repository name."""
    host, _, path = nightly.repository.partition("/")
    return standing(host, path, tags)


def test_branch_moves_its_own_tags_alone(nightly: Nightly) -> None:
    """A merge request changes what everybody's jobs run on, or is built a second time once it is merged."""
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
    """Going back on the default branch undoes a merge request's promotion instead of its own."""
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
    """Images of merge requests pile up for ever, or go while somebody's pipeline runs on them."""
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
    """A merged branch takes the image of the default branch along when it goes."""
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
        ("---", "its tags could be mistaken for others"),
        ("two", "its tag 3.13-slim-two is already in the matrix"),
    ],
)
def test_branch_that_would_be_taken_for_something_else(tmp_path: Path, name: str, says: str) -> None:
    """A branch's name moves a tag that jobs of others run on."""
    nightly = Nightly(folder=tmp_path, repository="registry.invalid/ci", env={})
    nightly.lock()
    nightly.matrix(extra='aliases = { "3.13-slim-two" = "3.13-slim" }')
    done = nightly.builder("plan", "--branch", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--branch '{name}': {says}" in done.stderr
    assert "mr-42" in done.stderr
