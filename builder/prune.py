"""Which immutable tags nobody needs any more, and their removal. Only what carries our label is ever touched."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
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
    """An immutable tag that may go, and the digest by which it goes."""

    ref: ImageRef
    digest: Digest


def candidates(
    repository: ImageRef, registries: Registries, *, generations: int, present_keys: Collection[str]
) -> tuple[Candidate, ...]:
    """Return the immutable tags of ours that nothing keeps.

    Kept is what any other tag names, what the latest `generations` promotions before the present one named, and what
    the present plan would build.
    """
    tags = registries.tags(repository)
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
    kept = {digests[tag] for tag in tags if tag not in ours}
    kept |= {digests[tag] for tag in ours if labels[tag][KEY_LABEL] in present_keys}
    kept |= _named_by_generations(repository, registries, generations)
    return tuple(
        Candidate(ref=repository.with_tag(tag), digest=digest)
        for tag in ours
        if (digest := digests[tag]) is not None and digest not in kept
    )


def _is_ours(tag: str, cell: str | None, key: str | None) -> bool:
    """Whether the image's own labels say what its tag says."""
    return cell is not None and key is not None and tag == f"{cell}-{key[:KEY_LENGTH]}"


def _named_by_generations(repository: ImageRef, registries: Registries, generations: int) -> set[Digest | None]:
    """The digests that moving tags named in the latest promotions, the present set among them."""
    named: set[Digest | None] = set()
    for promotion in read_journal(repository, registries)[:generations]:
        for move in promotion.moves:
            named |= {move.old, move.new}
    return named


def remove(found: Iterable[Candidate], registries: Registries) -> None:
    """Delete the candidates' manifests; raise RegistryError where the registry does not offer that."""
    for each in found:
        registries.delete(each.ref.with_digest(each.digest))
