"""The moves of tags that a run plans."""

from __future__ import annotations

from builder.oci.reference import Digest
from builder.release.journal import Move
from builder.release.promote import plan_moves
from builder.release.publisher import DryRunPublisher
from builder.release.state import RegistryState
from tests import cells
from tests.layers import chosen, digest, rendered

OLD, NEW, OTHER = digest(b"old"), digest(b"new"), digest(b"other")


def moves(first: Digest, second: Digest) -> tuple[Move, ...]:
    """The moves to two images, where the tag of one names these digests now."""
    images = [rendered([chosen("one")], cells.debian(python)) for python in ("3.11", "3.12")]
    states = [
        RegistryState(rendered=image, digest=to, moving={str(image.moving_tags[0].tag): now})
        for image, to, now in zip(images, (NEW, OTHER), (first, second), strict=True)
    ]
    return plan_moves([state.image for state in states if state.image], states)


def test_tag_that_stays_is_part_of_the_plan() -> None:
    """Broken: another run moves a tag that this one relies on, and both leave parts of two sets."""
    planned = moves(OLD, OTHER)
    assert [(move.old, move.new, move.stays) for move in planned] == [(OLD, NEW, False), (OTHER, OTHER, True)]
    tag = rendered([chosen("one")]).immutable_tag
    assert [move.new for move in DryRunPublisher().move(tag, planned).moves] == [NEW]


def test_no_move_where_all_tags_stay() -> None:
    """Broken: a run without a change takes the lease, and writes to the journal."""
    assert moves(NEW, OTHER) == ()
