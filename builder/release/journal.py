"""The journal of promotions, which is stored in the registry.

It is an image without layers under the tag `builder-journal`, whose label `io.gitlab.prebuilt.journal` lists the latest
promotions, newest first: `[{"at": time, "complete": bool, "moves": [{"tag", "old", "new"}, …]}, …]`, where `old` and
`new` are digests or null. Each branch has a separate journal, `builder-journal-<branch>`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import AwareDatetime, StringConstraints

from builder.contract import CONFIG_TYPE, JOURNAL_LABEL, JOURNAL_TAG, MANIFEST_TYPE
from builder.errors import PublishError
from builder.oci.manifest import DigestText, Manifest, descriptor, digest_of
from builder.oci.reference import TAG_PATTERN, Digest, ImageRef
from builder.oci.registry import Registries
from builder.parse import Document, MalformedError, parse_value

GENERATIONS: Final = 20  # promotions that the journal keeps


@dataclass(frozen=True, kw_only=True)
class Move:
    """A move of a tag from the digest `old` to the digest `new`.

    `old` is None if the tag did not exist before, `new` in a dry run for an image that is not built yet.
    """

    tag: str
    old: Digest | None
    new: Digest | None


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """Moves that succeed or fail together. `at` is when they began; `complete` means that all succeeded."""

    at: datetime
    moves: tuple[Move, ...]
    complete: bool


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

    at: AwareDatetime
    complete: bool
    moves: tuple[_MoveEntry, ...]


def fetch_journal(journal_tag: ImageRef, registries: Registries) -> list[Promotion]:
    """Fetch the promotions in the journal, newest first; none if there is no journal.

    Raises PublishError if the tag names something else.
    """
    manifest = registries.fetch_manifest(journal_tag)
    if manifest is None:
        return []
    label = registries.fetch_config(journal_tag, manifest).labels.get(JOURNAL_LABEL, "")
    try:
        return [_promotion(entry) for entry in parse_value(list[_PromotionEntry], label)]
    except MalformedError as error:
        raise PublishError(
            f"{journal_tag} is not a journal of builder: {error}",
            hint="another tool uses that tag; choose another repository for the images",
        ) from error


def put_journal(journal_tag: ImageRef, promotions: Sequence[Promotion], registries: Registries) -> None:
    """Replace the journal in the registry, with at most the latest 20 promotions."""
    entries = [_entry(promotion) for promotion in promotions[:GENERATIONS]]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {JOURNAL_LABEL: json.dumps(entries, sort_keys=True)}},
            "rootfs": {"type": "layers", "diff_ids": []},
        },
        sort_keys=True,
    ).encode()
    digest = digest_of(config)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": CONFIG_TYPE, **descriptor(config)},
        "layers": [],
    }
    registries.put_blob(journal_tag, digest, lambda: io.BytesIO(config))
    registries.put_manifest(journal_tag, Manifest.of(manifest))


def _entry(promotion: Promotion) -> dict[str, Any]:
    moves = [
        {"tag": move.tag, "old": str(move.old) if move.old else None, "new": str(move.new) if move.new else None}
        for move in promotion.moves
    ]
    return {"at": promotion.at.isoformat(timespec="seconds"), "complete": promotion.complete, "moves": moves}


def _promotion(entry: _PromotionEntry) -> Promotion:
    moves = tuple(Move(tag=move.tag, old=_digest(move.old), new=_digest(move.new)) for move in entry.moves)
    return Promotion(at=entry.at, moves=moves, complete=entry.complete)


def _digest(text: str | None) -> Digest | None:
    return Digest.from_str(text) if text else None
