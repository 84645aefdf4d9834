"""Which immutable tags nobody needs any more, and their removal. Only what carries our label is ever touched.

The tags of a branch keep their images as long as the branch has been promoted to lately; its journal knows them, and
goes with the last of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from builder.inputs import CELL_LABEL, KEY_LABEL
from builder.promote import JOURNAL_TAG, Promotion, journal_of, read_journal
from builder.refs import Digest, ImageRef
from builder.registry import Registries
from builder.render import KEY_LENGTH
from builder.standing import image_labels

_IMMUTABLE = re.compile(rf"(?P<cell>.+)-(?P<key>[0-9a-f]{{{KEY_LENGTH}}})")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to keep beside what other tags name.

    That is the latest `generations` promotions, the images with the keys of the present plan, and the branches that
    were promoted to `since` then and are not the `gone` one.
    """

    generations: int
    keys: Collection[str]
    since: datetime
    gone: str


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An immutable tag, or the journal of a branch, that may go, and the digest by which it goes."""

    ref: ImageRef
    digest: Digest


def candidates(repository: ImageRef, registries: Registries, wanted: Wanted) -> tuple[Candidate, ...]:
    """Return the immutable tags of ours that nothing keeps, and the journals of branches that have none left."""
    tags = registries.tags(repository)
    branches = _left_branches(repository, tags, registries, wanted)
    left = {tag for promotions in branches.values() for tag in _tags_of(promotions)} | set(branches)
    immutable = [tag for tag in tags if _IMMUTABLE.fullmatch(tag)]
    with ThreadPoolExecutor(max_workers=8) as pool:
        digests = dict(zip(tags, pool.map(lambda tag: registries.find(repository.with_tag(tag)), tags), strict=True))
        labels = dict(
            zip(
                immutable,
                pool.map(lambda tag: image_labels(repository.with_tag(tag), registries), immutable),
                strict=True,
            )
        )
    ours = [tag for tag in immutable if _is_ours(tag, labels[tag].get(CELL_LABEL), labels[tag].get(KEY_LABEL))]
    kept = {digests[tag] for tag in tags if tag not in ours and tag not in left}
    kept |= {digests[tag] for tag in ours if labels[tag][KEY_LABEL] in wanted.keys}
    kept |= _named_by_generations(repository, registries, wanted.generations)
    # A tag goes with its digest and not otherwise, so that a branch's tag on an image that stays, stays too.
    done = [
        journal for journal, promotions in branches.items()
        if all(digests.get(tag) not in kept for tag in _tags_of(promotions))
    ]  # fmt: skip
    return tuple(
        Candidate(ref=repository.with_tag(tag), digest=digest)
        for tag in [*ours, *done]
        if (digest := digests[tag]) is not None and digest not in kept
    )


def _left_branches(
    repository: ImageRef, tags: Iterable[str], registries: Registries, wanted: Wanted
) -> dict[str, list[Promotion]]:
    """The journals, by tag, of branches that nobody works on any more."""
    journals = {
        tag: read_journal(repository.with_tag(tag), registries) for tag in tags if tag.startswith(f"{JOURNAL_TAG}-")
    }
    gone = journal_of(repository, wanted.gone).tag if wanted.gone else None
    return {
        tag: promotions
        for tag, promotions in journals.items()
        if tag == gone or all(promotion.at < wanted.since for promotion in promotions)
    }


def _tags_of(promotions: Iterable[Promotion]) -> set[str]:
    return {move.tag for promotion in promotions for move in promotion.moves}


def _is_ours(tag: str, cell: str | None, key: str | None) -> bool:
    """Whether the image's own labels say what its tag says."""
    return cell is not None and key is not None and tag == f"{cell}-{key[:KEY_LENGTH]}"


def _named_by_generations(repository: ImageRef, registries: Registries, generations: int) -> set[Digest | None]:
    """The digests that moving tags named in the latest promotions, the present set among them."""
    named: set[Digest | None] = set()
    for promotion in read_journal(journal_of(repository, ""), registries)[:generations]:
        for move in promotion.moves:
            named |= {move.old, move.new}
    return named


def remove(found: Iterable[Candidate], registries: Registries) -> None:
    """Delete the candidates' manifests; raise RegistryError where the registry does not offer that."""
    for each in found:
        registries.delete(each.ref.with_digest(each.digest))
