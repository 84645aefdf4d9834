"""Moving tags: put by manifest bytes when every cell has passed, all or none, with a journal in the registry."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from builder.errors import BuilderError, PublishError, RegistryError
from builder.image.render import RenderedImage
from builder.oci.reference import Digest, ImageRef
from builder.oci.registry import Registries
from builder.release.journal import Move, Promotion, fetch_journal, put_journal
from builder.release.publish import PublishedImage
from builder.release.state import RegisteredImage, RegistryState


@dataclass(frozen=True, kw_only=True)
class PlannedImage:
    """What a dry run has instead of an image: its digest is known only after the build."""

    rendered: RenderedImage
    digest: None = None


Promotable = PublishedImage | RegisteredImage


def plan_moves(images: Iterable[Promotable | PlannedImage], states: Iterable[RegistryState]) -> tuple[Move, ...]:
    """The moves that put each image's moving tags on it; `states` say what the tags name now."""
    now = {name: digest for state in states for name, digest in state.moving.items()}
    return tuple(
        Move(tag=str(tag.tag), old=now[str(tag.tag)], new=image.digest)
        for image in images
        for tag in image.rendered.moving_tags
        if image.digest is None or now[str(tag.tag)] != image.digest
    )


def promote(journal_tag: ImageRef, moves: Sequence[Move], registries: Registries) -> Promotion:
    """Carry out the moves, all or none, in the repository of the journal.

    Raises PublishError where somebody else moved a tag meanwhile (nothing is moved), and where a move fails (those done
    are undone, and the message says what stands where).
    """
    repository = replace(journal_tag, tag=None)
    todo = _unfinished(repository, moves, registries)
    journal = fetch_journal(journal_tag, registries)
    entry = Promotion(at=datetime.now(timezone.utc), moves=_since_last_complete(todo, journal), complete=False)
    past = [each for each in journal if each.complete]
    put_journal(journal_tag, [entry, *past], registries)
    done: list[Move] = []
    try:
        for move in todo:
            done.append(move)
            _put(repository, move.tag, move.new, registries)
    except BuilderError as error:
        raise _undone(repository, done, todo, error, registries) from error
    finished = replace(entry, complete=True)
    with contextlib.suppress(RegistryError):  # the tags stand; the next run completes the journal
        put_journal(journal_tag, [finished, *past], registries)
    return finished


def fetch_rollback(journal_tag: ImageRef, registries: Registries) -> tuple[Move, ...]:
    """Read the journal and return the moves that undo the latest promotion.

    Raises PublishError where there is no promotion to undo.
    """
    repository = replace(journal_tag, tag=None)
    journal = fetch_journal(journal_tag, registries)
    if not journal:
        raise PublishError(f"{repository} has no promotion to undo", hint="builder has not promoted anything there yet")
    back = [Move(tag=move.tag, old=move.new, new=move.old) for move in journal[0].moves if move.old is not None]
    now = {move.tag: registries.fetch_digest(repository.with_tag(move.tag)) for move in back}
    back = [move for move in back if now[move.tag] != move.new]
    if not journal[0].complete:
        # It stopped half way: a tag that it had not reached has nothing to go back from.
        back = [move for move in back if now[move.tag] == move.old]
    if not back:
        raise PublishError(
            f"{repository} already has the tags from before its latest promotion", hint="nothing was moved"
        )
    return tuple(back)


def _unfinished(repository: ImageRef, moves: Sequence[Move], registries: Registries) -> list[Move]:
    """Re-read every tag: leave out those that are there already, and refuse where one is neither here nor there."""
    todo, conflicts = [], []
    for move in moves:
        now = registries.fetch_digest(repository.with_tag(move.tag))
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
    manifest = registries.fetch_manifest(repository.with_digest(digest))
    if manifest is None:
        raise RegistryError(f"{repository.registry} has no manifest {digest} any more", hint="build it again")
    registries.put_manifest(repository.with_tag(tag), manifest)
    now = registries.fetch_digest(repository.with_tag(tag))
    if now != digest:
        raise RegistryError(f"{repository.with_tag(tag)} reads back as {now}, put was {digest}")


def _undone(
    repository: ImageRef, done: Sequence[Move], todo: Sequence[Move], error: BuilderError, registries: Registries
) -> PublishError:
    """Move back what was moved, as far as that goes, and say what stands where."""
    stuck = []
    for move in done:
        try:
            now = registries.fetch_digest(repository.with_tag(move.tag))
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
