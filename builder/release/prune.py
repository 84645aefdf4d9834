"""Finds and deletes immutable tags that nothing uses. It deletes only images with builder's labels.

A manifest is deleted by its digest, and with it every tag that names it then; so the tags are read again just before.

The tags of a branch keep their images for some time after the latest promotion to the branch. Its journal lists them,
and is deleted with the last of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from builder.contract import CELL_LABEL, JOURNAL_TAG, KEY_LABEL, KEY_LENGTH, UNVERIFIED
from builder.oci.manifest import ImageConfig, Manifest
from builder.oci.reference import Digest, ImageRef
from builder.oci.registry import Registries
from builder.release.immutable import pushed_at
from builder.release.journal import Promotion, fetch_journal, journal_of
from builder.release.lease import held
from builder.release.state import fetch_image_config

# An image that is not verified yet has another tag; once it is, both name it.
IMMUTABLE = re.compile(rf"(?P<cell>.+)-(?P<key>[0-9a-f]{{{KEY_LENGTH}}})(-{UNVERIFIED})?")


@dataclass(frozen=True, kw_only=True)
class Retention:
    """Which images to keep, besides those that other tags name.

    They are those of the latest `generations` promotions, those with a key in `keys`, those pushed after
    `pushed_after`, and those of branches with a promotion after `promoted_after`, except the branch `deleted_branch`.
    """

    generations: int
    keys: Collection[str]
    pushed_after: datetime
    promoted_after: datetime
    deleted_branch: str


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An immutable tag, or a branch's journal, that may be deleted: its digest, and those of an index's manifests.

    `tags` are all tags that name the digest; they go with it.
    """

    ref: ImageRef
    digest: Digest
    children: tuple[Digest, ...]
    tags: frozenset[str]


def fetch_candidates(repository: ImageRef, registries: Registries, retention: Retention) -> tuple[Candidate, ...]:
    """Fetch all tags, and return the immutable tags that nothing keeps and the journals of branches without images.

    An index that is kept keeps the manifests that it lists.
    """
    tags = registries.fetch_tags(repository)
    branches = _fetch_stale_branches(repository, tags, registries, retention)
    stale = {tag for promotions in branches.values() for tag in _tags_of(promotions)} | set(branches)
    manifests, configs = _fetch_images(repository, tags, registries)
    ours = {tag for tag, config in configs.items() if _is_ours(tag, config)}
    kept = {manifest.digest for tag, manifest in manifests.items() if tag not in ours | stale}
    kept |= {
        manifests[tag].digest
        for tag in ours & manifests.keys()
        if _is_retained(manifests[tag], configs[tag], retention)
    }
    kept |= _fetch_generations(repository, registries, retention.generations)
    kept |= _fetch_children(repository, kept, manifests.values(), registries)
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
            tags=frozenset(name for name, other in manifests.items() if other.digest == manifest.digest),
        )
        for tag, manifest in manifests.items()
        if tag in deletable and manifest.digest not in kept
    )


def _fetch_images(
    repository: ImageRef, tags: Iterable[str], registries: Registries
) -> tuple[dict[str, Manifest], dict[str, ImageConfig]]:
    """Fetch the manifest of each tag, and the config of each tag that has the form of an immutable one."""
    refs = {tag: repository.with_tag(tag) for tag in tags}
    immutable = {tag: ref for tag, ref in refs.items() if IMMUTABLE.fullmatch(tag)}
    manifests = zip(refs, registries.map(registries.fetch_manifest, refs.values()), strict=True)
    configs = registries.map(lambda ref: fetch_image_config(ref, registries), immutable.values())
    return {tag: manifest for tag, manifest in manifests if manifest}, dict(zip(immutable, configs, strict=True))


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


def _fetch_children(
    repository: ImageRef, digests: Iterable[Digest], known: Iterable[Manifest], registries: Registries
) -> set[Digest]:
    """The digests of the manifests that the indexes among these digests list; fetch those that are not known."""
    manifests = {manifest.digest: manifest for manifest in known}
    found = [manifests.get(digest) or registries.fetch_manifest(repository.with_digest(digest)) for digest in digests]
    return {child for manifest in found if manifest for child in manifest.children}


def _is_retained(manifest: Manifest, config: ImageConfig, retention: Retention) -> bool:
    """Whether an image belongs to the current plan, or may belong to a run that has not moved its tags yet.

    When it was built says little: BuildKit's cache and SOURCE_DATE_EPOCH set that into the past. It counts only for
    images from before builder wrote down when it pushed them.
    """
    if config.labels[KEY_LABEL] in retention.keys:
        return True
    time = pushed_at(manifest)
    built = f"{(config.created or '')[:19]}+00:00"
    return time > retention.pushed_after if time else built > retention.pushed_after.isoformat("T", "seconds")


def _is_ours(tag: str, config: ImageConfig) -> bool:
    """Whether the image's labels match its tag, so that builder built it."""
    cell, key = config.labels.get(CELL_LABEL), config.labels.get(KEY_LABEL)
    return cell is not None and key is not None and tag.removesuffix(f"-{UNVERIFIED}") == f"{cell}-{key[:KEY_LENGTH]}"


def _fetch_generations(repository: ImageRef, registries: Registries, generations: int) -> set[Digest]:
    """Fetch the digests that moving tags named in the latest promotions, the current one included."""
    return {
        digest
        for promotion in fetch_journal(journal_of(repository, ""), registries)[:generations]
        for move in promotion.moves
        for digest in (move.old, move.new)
        if digest is not None
    }


def delete_unused(repository: ImageRef, registries: Registries, retention: Retention) -> Iterator[Candidate]:
    """Find candidates and delete those that no other tag names by then; yield each that was deleted.

    No promotion moves a tag meanwhile: the run holds the lease. Raises RegistryError if the registry does not allow
    deletion, and PublishError if it cannot get the lease, or loses it.
    """
    gone: set[Digest] = set()
    with held(repository, registries) as lease:
        for candidate in fetch_candidates(repository, registries, retention):
            lease.check()
            if candidate.digest in gone:  # it had two tags
                yield candidate
                continue
            named = _fetch_named(repository, candidate, registries)
            if candidate.digest in named:
                continue
            # An index is deleted before the manifests that it lists, because some registries refuse the other order.
            for digest in (candidate.digest, *(child for child in candidate.children if child not in named)):
                registries.delete(candidate.ref.with_digest(digest))
            gone.add(candidate.digest)
            yield candidate


def _fetch_named(repository: ImageRef, candidate: Candidate, registries: Registries) -> set[Digest]:
    """Fetch the digests that other tags than the candidate's name now.

    Immutable tags are left out: they never move, and another one names another image, unless the candidate was verified
    meanwhile.
    """
    tags = [
        tag for tag in registries.fetch_tags(repository)
        if tag not in candidate.tags
        and (not IMMUTABLE.fullmatch(tag) or f"{tag}-{UNVERIFIED}" in candidate.tags)
    ]  # fmt: skip
    found = set(registries.map(lambda tag: registries.fetch_digest(repository.with_tag(tag)), tags))
    return {digest for digest in found if digest}
