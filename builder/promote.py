"""Moving tags: put by manifest bytes when every cell has passed, all or none, with a journal in the registry.

The journal is an image without layers under the tag `builder-journal`, whose label `io.gitlab.prebuilt.journal` lists
the latest promotions, newest first: `[{"at": time, "complete": bool, "moves": [{"tag", "old", "new"}, …]}, …]`, digests
or null. The tags of a branch have a journal of their own, `builder-journal-<branch>`.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, Final

from builder.errors import BuilderError, PublishError, RegistryError
from builder.publish import CONFIG_TYPE, MANIFEST_TYPE, PublishedImage
from builder.refs import Digest, ImageRef
from builder.registry import Manifest, Registries, digest_of
from builder.render import LABELS

JOURNAL_TAG: Final = "builder-journal"
JOURNAL_LABEL: Final = f"{LABELS}.journal"
GENERATIONS: Final = 20  # promotions that the journal remembers


@dataclass(frozen=True, kw_only=True)
class Move:
    """A moving tag, what it named before (None: nothing) and what it is to name."""

    tag: str
    old: Digest | None
    new: Digest | None


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """A set of moves that belong together, begun at a time; `complete` once all of them are done."""

    at: datetime
    moves: tuple[Move, ...]
    complete: bool


def journal_of(repository: ImageRef, branch: str) -> ImageRef:
    """The tag of the journal of a branch's tags, or of the project's own where `branch` is empty."""
    return repository.with_tag(f"{JOURNAL_TAG}-{branch}" if branch else JOURNAL_TAG)


def moves_for(images: Iterable[PublishedImage], standing: Mapping[str, Digest | None]) -> tuple[Move, ...]:
    """The moves that put each image's moving tags on it; `standing` says what the tags name now."""
    return tuple(
        Move(tag=str(tag.tag), old=standing[str(tag.tag)], new=image.digest)
        for image in images
        for tag in image.rendered.moving_tags
        if standing[str(tag.tag)] != image.digest
    )


def promote(journal_tag: ImageRef, moves: Sequence[Move], registries: Registries) -> Promotion:
    """Carry out the moves, all or none, in the repository of the journal.

    Raises PublishError where somebody else moved a tag meanwhile (nothing is moved), and where a move fails (those done
    are undone, and the message says what stands where).
    """
    repository = replace(journal_tag, tag=None)
    todo = _unfinished(repository, moves, registries)
    journal = read_journal(journal_tag, registries)
    entry = Promotion(at=datetime.now(timezone.utc), moves=_since_last_complete(todo, journal), complete=False)
    past = [each for each in journal if each.complete]
    write_journal(journal_tag, [entry, *past], registries)
    done: list[Move] = []
    try:
        for move in todo:
            done.append(move)
            _put(repository, move.tag, move.new, registries)
    except BuilderError as error:
        raise _undone(repository, done, todo, error, registries) from error
    finished = replace(entry, complete=True)
    with contextlib.suppress(RegistryError):  # the tags stand; the next run completes the journal
        write_journal(journal_tag, [finished, *past], registries)
    return finished


def rollback(journal_tag: ImageRef, registries: Registries) -> Promotion:
    """Put back what the tags named before the latest promotion; raise PublishError where there is none to undo."""
    repository = replace(journal_tag, tag=None)
    journal = read_journal(journal_tag, registries)
    if not journal:
        raise PublishError(f"{repository} has no promotion to undo", hint="nothing was promoted there by builder yet")
    back = [Move(tag=move.tag, old=move.new, new=move.old) for move in journal[0].moves if move.old is not None]
    standing = {move.tag: registries.find(repository.with_tag(move.tag)) for move in back}
    back = [move for move in back if standing[move.tag] != move.new]
    if not journal[0].complete:
        # It stopped half way: a tag that it had not reached has nothing to go back from.
        back = [move for move in back if standing[move.tag] == move.old]
    if not back:
        raise PublishError(f"{repository} stands as before its latest promotion already", hint="nothing was moved")
    return promote(journal_tag, back, registries)


def _unfinished(repository: ImageRef, moves: Sequence[Move], registries: Registries) -> list[Move]:
    """Re-read every tag: leave out those that are there already, and refuse where one is neither here nor there."""
    todo, conflicts = [], []
    for move in moves:
        now = registries.find(repository.with_tag(move.tag))
        if now == move.new:
            continue
        if now != move.old:
            conflicts.append(f"{move.tag}: was {move.old or 'absent'}, is {now or 'absent'}, ours is {move.new}")
        todo.append(move)
    if conflicts:
        raise PublishError(
            "\n  ".join([f"somebody else moved tags of {repository.familiar}; none was moved here:", *conflicts]),
            hint="look who, and run again: the next run plans from what stands there now",
        )
    return todo


def _since_last_complete(todo: Sequence[Move], journal: Sequence[Promotion]) -> tuple[Move, ...]:
    """The moves as seen from the last complete set, which is what to go back to after an interrupted promotion."""
    before = {move.tag: move.old for move in journal[0].moves} if journal and not journal[0].complete else {}
    moves = {move.tag: replace(move, old=before.get(move.tag, move.old)) for move in todo}
    if journal and not journal[0].complete:
        moves = {move.tag: move for move in journal[0].moves} | moves
    return tuple(moves.values())


def _put(repository: ImageRef, tag: str, digest: Digest | None, registries: Registries) -> None:
    """Put a tag by the bytes of the manifest that it is to name, and read it back."""
    assert digest is not None  # noqa: S101 - rollback leaves out tags that were not there before
    manifest = registries.manifest(repository.with_digest(digest))
    if manifest is None:
        raise RegistryError(f"{repository.registry} has no manifest {digest} any more", hint="build it again")
    registries.put_manifest(repository.with_tag(tag), manifest)
    now = registries.find(repository.with_tag(tag))
    if now != digest:
        raise RegistryError(f"{repository.with_tag(tag)} reads back as {now}, put was {digest}")


def _undone(
    repository: ImageRef, done: Sequence[Move], todo: Sequence[Move], error: BuilderError, registries: Registries
) -> PublishError:
    """Move back what was moved, as far as that goes, and say what stands where."""
    stuck = []
    for move in done:
        try:
            now = registries.find(repository.with_tag(move.tag))
            if now == move.old:
                continue
            if move.old is None:
                stuck.append(f"{move.tag}: {now} (it was absent before, and a tag cannot be taken away everywhere)")
                continue
            _put(repository, move.tag, move.old, registries)
        except BuilderError:
            stuck.append(f"{move.tag}: {move.old or 'absent'} or {move.new}, the registry does not say")
    what = f"the tags of {repository.familiar} could not all be moved: {error.what}"
    if stuck:
        untouched = [f"{move.tag}: {move.old or 'absent'}" for move in todo if move not in done]
        lines = [what, "what stands where:", *stuck, *untouched]
        return PublishError("\n  ".join(lines), hint="run again: the next run finishes without building anything anew")
    return PublishError(f"{what}; all of them stand as before", hint="run again: nothing needs to be built anew")


def read_journal(journal_tag: ImageRef, registries: Registries) -> list[Promotion]:
    """Return the promotions that the journal remembers, newest first; none where there is no journal."""
    manifest = registries.manifest(journal_tag)
    if manifest is None:
        return []
    config = json.loads(registries.blob(journal_tag, Digest.from_str(manifest.table["config"]["digest"])))
    try:
        return [_promotion(entry) for entry in json.loads(config["config"]["Labels"][JOURNAL_LABEL])]
    except (KeyError, TypeError, ValueError) as error:
        raise PublishError(
            f"{journal_tag} is no journal of builder",
            hint="somebody else uses that tag; choose another repository for the images",
        ) from error


def write_journal(journal_tag: ImageRef, promotions: Sequence[Promotion], registries: Registries) -> None:
    """Replace the journal."""
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
        "config": {"mediaType": CONFIG_TYPE, "digest": str(digest), "size": len(config)},
        "layers": [],
    }
    registries.put_blob(journal_tag, digest, lambda: io.BytesIO(config))
    registries.put_manifest(journal_tag, Manifest(content=json.dumps(manifest).encode(), media_type=MANIFEST_TYPE))


def _entry(promotion: Promotion) -> dict[str, Any]:
    moves = [
        {"tag": move.tag, "old": str(move.old) if move.old else None, "new": str(move.new) if move.new else None}
        for move in promotion.moves
    ]
    return {"at": promotion.at.isoformat(timespec="seconds"), "complete": promotion.complete, "moves": moves}


def _promotion(entry: Mapping[str, Any]) -> Promotion:
    return Promotion(
        at=datetime.fromisoformat(entry["at"]),
        moves=tuple(
            Move(tag=str(move["tag"]), old=_digest(move["old"]), new=_digest(move["new"])) for move in entry["moves"]
        ),
        complete=bool(entry["complete"]),
    )


def _digest(text: str | None) -> Digest | None:
    return Digest.from_str(text) if text else None
