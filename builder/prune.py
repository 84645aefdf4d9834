"""Which immutable tags nobody needs any more, and their removal. Only what carries our label is ever touched."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from builder.inputs import CELL_LABEL, KEY_LABEL
from builder.promote import read_journal
from builder.refs import Digest, ImageRef
from builder.registry import Registries
from builder.render import KEY_LENGTH
from builder.standing import image_labels

_IMMUTABLE = re.compile(rf"(?P<cell>.+)-(?P<key>[0-9a-f]{{{KEY_LENGTH}}})")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An immutable tag that may go, the digest by which it goes, and those of an index's manifests that go with it."""

    ref: ImageRef
    digest: Digest
    children: tuple[Digest, ...]


def candidates(
    repository: ImageRef, registries: Registries, *, generations: int, present_keys: Collection[str]
) -> tuple[Candidate, ...]:
    """Return the immutable tags of ours that nothing keeps.

    Kept is what any other tag names, what the latest `generations` promotions before the present one named, and what
    the present plan would build; of an index, also the manifests that it refers to.
    """
    tags = registries.tags(repository)
    immutable = [tag for tag in tags if _IMMUTABLE.fullmatch(tag)]
    found = registries.each(lambda tag: registries.manifest(repository.with_tag(tag)), tags)
    manifests = {tag: manifest for tag, manifest in zip(tags, found, strict=True) if manifest}
    told = registries.each(lambda tag: image_labels(repository.with_tag(tag), registries), immutable)
    labels = dict(zip(immutable, told, strict=True))
    ours = {tag for tag in immutable if _is_ours(tag, labels[tag].get(CELL_LABEL), labels[tag].get(KEY_LABEL))}
    kept = {each.digest for tag, each in manifests.items() if tag not in ours}
    kept |= {each.digest for tag, each in manifests.items() if tag in ours and labels[tag][KEY_LABEL] in present_keys}
    kept |= _named_by_generations(repository, registries, generations)
    known = {each.digest: each for each in manifests.values()}
    for digest in tuple(kept):
        manifest = known.get(digest) or registries.manifest(repository.with_digest(digest))
        kept |= set(manifest.children if manifest else ())
    return tuple(
        Candidate(
            ref=repository.with_tag(tag),
            digest=each.digest,
            children=tuple(child for child in each.children if child not in kept),
        )
        for tag, each in manifests.items()
        if tag in ours and each.digest not in kept
    )


def _is_ours(tag: str, cell: str | None, key: str | None) -> bool:
    """Whether the image's own labels say what its tag says."""
    return cell is not None and key is not None and tag == f"{cell}-{key[:KEY_LENGTH]}"


def _named_by_generations(repository: ImageRef, registries: Registries, generations: int) -> set[Digest]:
    """The digests that moving tags named in the latest promotions, the present set among them."""
    return {
        digest
        for promotion in read_journal(repository, registries)[:generations]
        for move in promotion.moves
        for digest in (move.old, move.new)
        if digest is not None
    }


def remove(found: Iterable[Candidate], registries: Registries) -> None:
    """Delete the candidates' manifests; raise RegistryError where the registry does not offer that.

    An index goes before what it refers to, which some registries refuse to delete from under it.
    """
    for each in found:
        for digest in (each.digest, *each.children):
            registries.delete(each.ref.with_digest(digest))
