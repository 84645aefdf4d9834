"""Which immutable tags nobody needs any more, and their removal. Only what carries our label is ever touched.

The tags of a branch keep their images as long as the branch has been promoted to lately; its journal knows them, and
goes with the last of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from builder.contract import CELL_LABEL, JOURNAL_TAG, KEY_LABEL, KEY_LENGTH
from builder.oci.manifest import ImageConfig
from builder.oci.reference import Digest, ImageRef
from builder.oci.registry import Registries
from builder.release.journal import Promotion, fetch_journal, journal_of
from builder.release.state import fetch_image_config

_IMMUTABLE = re.compile(rf"(?P<cell>.+)-(?P<key>[0-9a-f]{{{KEY_LENGTH}}})")


@dataclass(frozen=True, kw_only=True)
class Retention:
    """What to keep beside what other tags name.

    That is the latest `generations` promotions, the images with the keys of the present plan, those built lately, and
    the branches that were promoted to `since` then and are not the `gone` one.
    """

    generations: int
    keys: Collection[str]
    built_after: datetime
    since: datetime
    gone: str


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An immutable tag, or a branch's journal, that may go: by its digest, and with those manifests of an index."""

    ref: ImageRef
    digest: Digest
    children: tuple[Digest, ...]


def fetch_candidates(repository: ImageRef, registries: Registries, wanted: Retention) -> tuple[Candidate, ...]:
    """Return the immutable tags of ours that nothing keeps, and the journals of branches that have none left.

    What keeps an index keeps the manifests that it refers to.
    """
    tags = registries.fetch_tags(repository)
    branches = _read_left_branches(repository, tags, registries, wanted)
    left = {tag for promotions in branches.values() for tag in _tags_of(promotions)} | set(branches)
    immutable = [tag for tag in tags if _IMMUTABLE.fullmatch(tag)]
    found = registries.map(lambda tag: registries.fetch_manifest(repository.with_tag(tag)), tags)
    manifests = {tag: manifest for tag, manifest in zip(tags, found, strict=True) if manifest}
    told = registries.map(lambda tag: fetch_image_config(repository.with_tag(tag), registries), immutable)
    configs = dict(zip(immutable, told, strict=True))
    ours = {tag for tag in immutable if _is_ours(tag, configs[tag])}
    kept = {each.digest for tag, each in manifests.items() if tag not in ours and tag not in left}
    kept |= {each.digest for tag, each in manifests.items() if tag in ours and _is_wanted(configs[tag], wanted)}
    kept |= _read_generations(repository, registries, wanted.generations)
    known = {each.digest: each for each in manifests.values()}
    for digest in tuple(kept):
        manifest = known.get(digest) or registries.fetch_manifest(repository.with_digest(digest))
        kept |= set(manifest.children if manifest else ())
    # A tag goes with its digest and not otherwise, so that a branch's tag on an image that stays, stays too.
    going = ours | {
        journal for journal, promotions in branches.items()
        if not any(tag in manifests and manifests[tag].digest in kept for tag in _tags_of(promotions))
    }  # fmt: skip
    return tuple(
        Candidate(
            ref=repository.with_tag(tag),
            digest=each.digest,
            children=tuple(child for child in each.children if child not in kept),
        )
        for tag, each in manifests.items()
        if tag in going and each.digest not in kept
    )


def _read_left_branches(
    repository: ImageRef, tags: Iterable[str], registries: Registries, wanted: Retention
) -> dict[str, list[Promotion]]:
    """The journals, by tag, of branches that nobody works on any more."""
    journals = {
        tag: fetch_journal(repository.with_tag(tag), registries) for tag in tags if tag.startswith(f"{JOURNAL_TAG}-")
    }
    gone = journal_of(repository, wanted.gone).tag if wanted.gone else None
    return {
        tag: promotions
        for tag, promotions in journals.items()
        if tag == gone or all(promotion.at < wanted.since for promotion in promotions)
    }


def _tags_of(promotions: Iterable[Promotion]) -> set[str]:
    return {move.tag for promotion in promotions for move in promotion.moves}


def _is_wanted(config: ImageConfig, wanted: Retention) -> bool:
    """Whether an image is of the present plan, or may belong to a run that has not moved its tags yet."""
    built = f"{(config.created or '')[:19]}+00:00"
    return config.labels[KEY_LABEL] in wanted.keys or built > wanted.built_after.isoformat("T", "seconds")


def _is_ours(tag: str, config: ImageConfig) -> bool:
    """Whether the image's own labels say what its tag says."""
    cell, key = config.labels.get(CELL_LABEL), config.labels.get(KEY_LABEL)
    return cell is not None and key is not None and tag == f"{cell}-{key[:KEY_LENGTH]}"


def _read_generations(repository: ImageRef, registries: Registries, generations: int) -> set[Digest]:
    """The digests that moving tags named in the latest promotions, the present set among them."""
    return {
        digest
        for promotion in fetch_journal(journal_of(repository, ""), registries)[:generations]
        for move in promotion.moves
        for digest in (move.old, move.new)
        if digest is not None
    }


def delete_candidates(found: Iterable[Candidate], registries: Registries) -> None:
    """Delete the candidates' manifests; raise RegistryError where the registry does not offer that.

    An index goes before what it refers to, which some registries refuse to delete from under it.
    """
    for each in found:
        for digest in (each.digest, *each.children):
            registries.delete(each.ref.with_digest(digest))
