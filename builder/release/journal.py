"""The journal of promotions, which is stored in the registry.

It is an image without layers under the tag `builder-journal`, whose label `io.gitlab.prebuilt.journal` lists the latest
promotions, newest first: `[{"at": time, "by": text, "complete": bool, "moves": [{"tag", "old", "new"}, …]}, …]`, where
`old` and `new` are digests or null, and `by` says which run it was. Each branch has a separate journal,
`builder-journal-<branch>`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import StringConstraints

from builder.contract import JOURNAL_LABEL, JOURNAL_TAG
from builder.errors import PublishError
from builder.oci.manifest import DigestText
from builder.oci.reference import TAG_PATTERN, Digest, ImageRef
from builder.oci.registry import Registries
from builder.parse import Document, MalformedError, OneLine, UtcTime, parse_value
from builder.release.note import fetch_note, put_note

GENERATIONS: Final = 20  # promotions that the journal keeps


@dataclass(frozen=True, kw_only=True)
class Move:
    """A move of a tag from the digest `old` to the digest `new`.

    `old` is None if the tag did not exist before, `new` in a dry run for an image that is not built yet. If they are
    the same, the tag stays, and nobody else may move it.
    """

    tag: str
    old: Digest | None
    new: Digest | None

    @property
    def stays(self) -> bool:
        """Whether the tag already names what it should."""
        return self.new is not None and self.old == self.new


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """Moves that succeed or fail together. `at` is when they began; `complete` means that all succeeded.

    `by` names the run to users, if that is known.
    """

    at: datetime
    moves: tuple[Move, ...]
    complete: bool
    by: str = ""


def journal_of(repository: ImageRef, branch: str) -> ImageRef:
    """Return the journal's tag for the tags of a branch, or for the project's own if `branch` is empty."""
    return repository.with_tag(f"{JOURNAL_TAG}-{branch}" if branch else JOURNAL_TAG)


class _MoveEntry(Document):
    """A move in the journal."""

    tag: Annotated[str, StringConstraints(pattern=f"^{TAG_PATTERN}$")]
    old: DigestText | None
    new: DigestText | None


class _PromotionEntry(Document):
    """A promotion in the journal."""

    at: UtcTime
    complete: bool
    moves: tuple[_MoveEntry, ...]
    by: Annotated[OneLine, StringConstraints(max_length=1000)] = ""


def fetch_journal(journal_tag: ImageRef, registries: Registries) -> list[Promotion]:
    """Fetch the promotions in the journal, newest first; none if there is no journal.

    Raises PublishError if the tag names something else.
    """
    label = fetch_note(journal_tag, JOURNAL_LABEL, registries)
    if label is None:
        return []
    try:
        return [_promotion(entry) for entry in parse_value(list[_PromotionEntry], label)]
    except MalformedError as error:
        raise PublishError(
            f"{journal_tag} is not a journal of builder: {error}",
            hint="another tool uses that tag; choose another repository for the images",
        ) from error


def fetch_settled_journal(journal_tag: ImageRef, registries: Registries) -> list[Promotion]:
    """Fetch the journal as `fetch_journal` does; a promotion is complete once all its tags name what they should.

    A run that was killed after its last move could not write that down.
    """
    journal = fetch_journal(journal_tag, registries)
    if journal and not journal[0].complete:
        tags = {journal_tag.with_tag(move.tag): move.new for move in journal[0].moves}
        if registries.map(registries.fetch_digest, tags) == list(tags.values()):
            journal[0] = replace(journal[0], complete=True)
    return journal


def put_journal(journal_tag: ImageRef, promotions: Sequence[Promotion], registries: Registries) -> None:
    """Replace the journal in the registry, with at most the latest 20 promotions."""
    entries = [_entry(promotion) for promotion in promotions[:GENERATIONS]]
    put_note(journal_tag, JOURNAL_LABEL, json.dumps(entries, sort_keys=True), registries)


def _entry(promotion: Promotion) -> dict[str, Any]:
    moves = [
        {"tag": move.tag, "old": str(move.old) if move.old else None, "new": str(move.new) if move.new else None}
        for move in promotion.moves
    ]
    at = promotion.at.isoformat(timespec="seconds")
    return {"at": at, "by": promotion.by, "complete": promotion.complete, "moves": moves}


def _promotion(entry: _PromotionEntry) -> Promotion:
    moves = tuple(Move(tag=move.tag, old=_digest(move.old), new=_digest(move.new)) for move in entry.moves)
    return Promotion(at=entry.at, moves=moves, complete=entry.complete, by=entry.by)


def _digest(text: str | None) -> Digest | None:
    return Digest.from_str(text) if text else None
