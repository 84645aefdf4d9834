"""Promotion: moves tags to images in the registry, all or none, and records it in a journal there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from builder.errors import BuilderError, PublishError, RegistryError, listed
from builder.image.index import RenderedIndex
from builder.image.render import RenderedImage
from builder.oci.reference import Digest, ImageRef
from builder.oci.registry import Registries
from builder.release.index import PublishedIndex, is_complete
from builder.release.journal import Move, Promotion, fetch_settled_journal, put_journal
from builder.release.lease import Lease
from builder.release.publish import PublishedImage
from builder.release.state import RegisteredImage, RegistryState


@dataclass(frozen=True, kw_only=True)
class PlannedImage:
    """An image that a dry run would build, or an index of such; its digest is not known yet."""

    rendered: RenderedImage | RenderedIndex
    digest: None = None


Promotable = PublishedImage | RegisteredImage
Named = Promotable | PublishedIndex | PlannedImage  # what moving tags name


def plan_moves(images: Iterable[Named], states: Iterable[RegistryState]) -> tuple[Move, ...]:
    """Plan the moves of each image's moving tags to it, also of those that stay; none if all do.

    `states` has what the tags name now.
    """
    now = {name: digest for state in states for name, digest in state.moving.items()}
    moves = tuple(
        Move(tag=str(tag.tag), old=now[str(tag.tag)], new=image.digest)
        for image in images
        for tag in image.rendered.moving_tags
    )
    return () if all(move.stays for move in moves) else moves


def promote(
    journal_tag: ImageRef,
    moves: Sequence[Move],
    registries: Registries,
    lease: Lease,
    *,
    latest: Promotion | None = None,
) -> Promotion:
    """Make the moves, all or none, in the journal's repository, whose lease the run holds.

    With `latest`, that must still be the latest promotion. Raises PublishError if somebody else moved a tag in the
    meantime (then nothing is moved), or if a move fails (then the earlier moves are undone, and the message lists what
    each tag names).
    """
    repository = replace(journal_tag, tag=None)
    journal = fetch_settled_journal(journal_tag, registries)
    if latest is not None and [latest] != journal[:1]:
        raise _overtaken(repository, journal)
    todo = _fetch_remaining(repository, moves, journal, registries)
    merged = _fetch_moves_since_last_complete(repository, todo, journal, registries)
    entry = Promotion(at=datetime.now(timezone.utc), moves=merged, complete=False, by=lease.holder)
    past = [promotion for promotion in journal if promotion.complete]
    put_journal(journal_tag, [entry, *past], registries)
    done: list[Move] = []
    try:
        for move in todo:
            lease.check()
            done.append(move)
            _make(repository, move, registries)
    except BuilderError as error:
        raise _undo(repository, done, todo, error, registries) from error
    finished = replace(entry, moves=tuple(move for move in merged if not move.stays), complete=True)
    with contextlib.suppress(RegistryError):  # the tags are moved, and whoever reads the journal sees that
        put_journal(journal_tag, [finished, *past] if finished.moves else past, registries)
    return finished


def _overtaken(repository: ImageRef, journal: Sequence[Promotion]) -> PublishError:
    who = _told(journal[0]) if journal else ""
    return PublishError(
        f"somebody else moved tags of {repository.familiar} meanwhile{who}; this run moved none",
        hint="run again: the next run starts from the current tags",
    )


def fetch_rollback(journal_tag: ImageRef, registries: Registries) -> tuple[Promotion, tuple[Move, ...]]:
    """Fetch the journal, and return the latest promotion and the moves that undo it.

    Raises PublishError if there is no promotion to undo.
    """
    repository = replace(journal_tag, tag=None)
    journal = fetch_settled_journal(journal_tag, registries)
    if not journal:
        raise PublishError(f"{repository} has no promotion to undo", hint="builder has not promoted an image there yet")
    back = [Move(tag=move.tag, old=move.new, new=move.old) for move in journal[0].moves if move.old is not None]
    now = {move.tag: registries.fetch_digest(repository.with_tag(move.tag)) for move in back}
    back = [move for move in back if now[move.tag] != move.new]
    if not journal[0].complete:
        # The promotion was interrupted: the tags that it did not reach stay.
        strange = [f"{move.tag} names {now[move.tag] or 'nothing'}" for move in back if now[move.tag] != move.old]
        if strange:
            raise PublishError(
                f"the latest promotion of {repository.familiar} was interrupted, and did not move {listed(strange)}",
                hint="nothing was moved; run `builder promote`, which moves all tags",
            )
    if not back:
        raise PublishError(
            f"the tags of {repository} are already those from before its latest promotion", hint="nothing was moved"
        )
    return journal[0], tuple(back)


def _fetch_remaining(
    repository: ImageRef, moves: Sequence[Move], journal: Sequence[Promotion], registries: Registries
) -> list[Move]:
    """Fetch every tag, and return the moves that are not done yet; raise PublishError if somebody else moved a tag."""
    todo, conflicts = [], []
    for move in moves:
        now = registries.fetch_digest(repository.with_tag(move.tag))
        if now == move.new:
            continue
        if now != move.old:
            who = _mover(move.tag, now, journal)
            conflicts.append(
                f"{move.tag}: named {move.old or 'nothing'}, now {now or 'nothing'}{who}, should name {move.new}"
            )
        todo.append(move)
    if conflicts:
        raise PublishError(
            "\n  ".join([f"somebody else moved tags of {repository.familiar}; this run moved none:", *conflicts]),
            hint="find out who, and run again: the next run starts from the current tags",
        )
    return todo


def _mover(tag: str, digest: Digest | None, journal: Sequence[Promotion]) -> str:
    """Say which promotion moved a tag to a digest, if the latest did."""
    latest = journal[0] if journal else None
    if latest is None or not any(move.tag == tag and move.new == digest for move in latest.moves):
        return ""
    return _told(latest)


def _told(promotion: Promotion) -> str:
    return f" (promoted at {promotion.at:%H:%M:%S} UTC{' by ' if promotion.by else ''}{promotion.by})"


def _fetch_moves_since_last_complete(
    repository: ImageRef, todo: Sequence[Move], journal: Sequence[Promotion], registries: Registries
) -> tuple[Move, ...]:
    """The moves relative to the last complete promotion, which a rollback returns to after an interrupted one.

    Those of an interrupted promotion that are not made again stand as they are in the registry.
    """
    interrupted = journal[0].moves if journal and not journal[0].complete else ()
    before = {move.tag: move.old for move in interrupted}
    moves = [replace(move, old=before.get(move.tag, move.old)) for move in todo]
    for tag in before.keys() - {move.tag for move in todo}:
        now = registries.fetch_digest(repository.with_tag(tag))
        if now not in {None, before[tag]}:
            moves.append(Move(tag=tag, old=before[tag], new=now))
    return tuple(sorted(moves, key=lambda move: move.tag))


def _make(repository: ImageRef, move: Move, registries: Registries) -> None:
    """Make a move, unless the tag was moved elsewhere meanwhile."""
    now = registries.fetch_digest(repository.with_tag(move.tag))
    if now == move.new:
        return
    if now != move.old:
        raise PublishError(f"somebody else moved {move.tag} to {now or 'nothing'} meanwhile")
    _put(repository, move.tag, move.new, registries)


def _put(repository: ImageRef, tag: str, digest: Digest | None, registries: Registries) -> None:
    """Point a tag to a manifest by uploading its bytes again, and check the result."""
    assert digest is not None  # noqa: S101 - rollback omits tags that did not exist before
    manifest = registries.fetch_manifest(repository.with_digest(digest))
    if manifest is None:
        raise RegistryError(f"{repository.registry} no longer has the manifest {digest}", hint="build the image again")
    if manifest.is_index and not is_complete(manifest, repository, registries):
        raise RegistryError(f"{repository.registry} no longer has all images of {digest}", hint="build them again")
    registries.put_manifest(repository.with_tag(tag), manifest)
    now = registries.fetch_digest(repository.with_tag(tag))
    if now != digest:
        raise RegistryError(f"{repository.with_tag(tag)} names {now} after it was moved to {digest}")


def _undo(
    repository: ImageRef, done: Sequence[Move], todo: Sequence[Move], error: BuilderError, registries: Registries
) -> PublishError:
    """Undo the moves that were done, as far as possible; return an error that lists what each tag names."""
    for move in done:
        with contextlib.suppress(BuilderError):
            # What is not this run's move, because somebody else moved the tag since, is not this run's to undo.
            if move.old is not None and registries.fetch_digest(repository.with_tag(move.tag)) == move.new:
                _put(repository, move.tag, move.old, registries)
    what = f"cannot move all tags of {repository.familiar}: {error.what}"
    lines, is_as_before = [], True
    for move in todo:
        try:
            now = registries.fetch_digest(repository.with_tag(move.tag))
        except BuilderError:
            lines.append(f"{move.tag}: {move.old or 'nothing'} or {move.new}, the registry does not answer")
            is_as_before = False
            continue
        is_as_before &= now == move.old
        lines.append(
            f"{move.tag}: {now or 'nothing'}{'' if now in {move.old, move.new} else ', moved by somebody else'}"
        )
    if is_as_before:
        return PublishError(f"{what}; no tag has changed", hint="run again: no image needs a rebuild")
    return PublishError(
        "\n  ".join([what, "the tags now name:", *lines]),
        hint="run again: the next run finishes the promotion without a build",
    )
