"""Finds and deletes immutable tags that nothing uses. It deletes only images with builder's labels.

The tags of a branch keep their images for some time after the latest promotion to the branch. Its journal lists them,
and is deleted with the last of them.
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
    """Which images to keep, besides those that other tags name.

    They are those of the latest `generations` promotions, those with a key in `keys`, those built after `built_after`,
    and those of branches with a promotion after `promoted_after`, except the branch `deleted_branch`.
    """

    generations: int
    keys: Collection[str]
    built_after: datetime
    promoted_after: datetime
    deleted_branch: str


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An immutable tag, or a branch's journal, that may be deleted: its digest, and those of an index's manifests."""

    ref: ImageRef
    digest: Digest
    children: tuple[Digest, ...]


def fetch_candidates(repository: ImageRef, registries: Registries, retention: Retention) -> tuple[Candidate, ...]:
    """Fetch all tags, and return the immutable tags that nothing keeps and the journals of branches without images.

    An index that is kept keeps the manifests that it lists.
    """
    tags = registries.fetch_tags(repository)
    branches = _fetch_stale_branches(repository, tags, registries, retention)
    stale = {tag for promotions in branches.values() for tag in _tags_of(promotions)} | set(branches)
    immutable = [tag for tag in tags if _IMMUTABLE.fullmatch(tag)]
    fetched = registries.map(lambda tag: registries.fetch_manifest(repository.with_tag(tag)), tags)
    manifests = {tag: manifest for tag, manifest in zip(tags, fetched, strict=True) if manifest}
    configs = dict(
        zip(
            immutable,
            registries.map(lambda tag: fetch_image_config(repository.with_tag(tag), registries), immutable),
            strict=True,
        )
    )
    ours = {tag for tag in immutable if _is_ours(tag, configs[tag])}
    kept = {manifest.digest for tag, manifest in manifests.items() if tag not in ours | stale}
    kept |= {manifests[tag].digest for tag in ours & manifests.keys() if _is_retained(configs[tag], retention)}
    kept |= _fetch_generations(repository, registries, retention.generations)
    known = {manifest.digest: manifest for manifest in manifests.values()}
    for digest in tuple(kept):
        manifest = known.get(digest) or registries.fetch_manifest(repository.with_digest(digest))
        kept |= set(manifest.children if manifest else ())
    # A tag is deleted only with its digest, so that a branch's tag stays if its image does.
    deletable = ours | {
        journal for journal, promotions in branches.items()
        if not any(tag in manifests and manifests[tag].digest in kept for tag in _tags_of(promotions))
    }  # fmt: skip
    return tuple(
        Candidate(
            ref=repository.with_tag(tag),
            digest=manifest.digest,
            children=tuple(child for child in manifest.children if child not in kept),
        )
        for tag, manifest in manifests.items()
        if tag in deletable and manifest.digest not in kept
    )


def _fetch_stale_branches(
    repository: ImageRef, tags: Iterable[str], registries: Registries, retention: Retention
) -> dict[str, list[Promotion]]:
    """Fetch the journals of branches without a recent promotion, by tag."""
    journals = {
        tag: fetch_journal(repository.with_tag(tag), registries) for tag in tags if tag.startswith(f"{JOURNAL_TAG}-")
    }
    deleted = journal_of(repository, retention.deleted_branch).tag if retention.deleted_branch else None
    return {
        tag: promotions
        for tag, promotions in journals.items()
        if tag == deleted or all(promotion.at < retention.promoted_after for promotion in promotions)
    }


def _tags_of(promotions: Iterable[Promotion]) -> set[str]:
    return {move.tag for promotion in promotions for move in promotion.moves}


def _is_retained(config: ImageConfig, retention: Retention) -> bool:
    """Whether an image belongs to the current plan, or may belong to a run that has not moved its tags yet."""
    built = f"{(config.created or '')[:19]}+00:00"
    return config.labels[KEY_LABEL] in retention.keys or built > retention.built_after.isoformat("T", "seconds")


def _is_ours(tag: str, config: ImageConfig) -> bool:
    """Whether the image's labels match its tag, so that builder built it."""
    cell, key = config.labels.get(CELL_LABEL), config.labels.get(KEY_LABEL)
    return cell is not None and key is not None and tag == f"{cell}-{key[:KEY_LENGTH]}"


def _fetch_generations(repository: ImageRef, registries: Registries, generations: int) -> set[Digest]:
    """Fetch the digests that moving tags named in the latest promotions, the current one included."""
    return {
        digest
        for promotion in fetch_journal(journal_of(repository, ""), registries)[:generations]
        for move in promotion.moves
        for digest in (move.old, move.new)
        if digest is not None
    }


def delete_candidates(candidates: Iterable[Candidate], registries: Registries) -> None:
    """Delete the candidates' manifests; raise RegistryError if the registry does not allow it.

    An index is deleted before the manifests that it lists, because some registries refuse the other order.
    """
    for candidate in candidates:
        for digest in (candidate.digest, *candidate.children):
            registries.delete(candidate.ref.with_digest(digest))
