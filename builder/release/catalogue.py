"""The images in a repository, by their tags: what each is, how old, how large, and who moved the tag there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from builder.contract import CELL_LABEL, JOURNAL_TAG, KEY_LABEL, UNVERIFIED
from builder.oci.manifest import ImageConfig, Manifest
from builder.oci.reference import Digest, ImageRef, is_tag
from builder.oci.registry import Registries
from builder.release.immutable import pushed_at
from builder.release.journal import Promotion, fetch_journal
from builder.release.prune import IMMUTABLE
from builder.release.state import labelled

_KEY: Final = re.compile("[0-9a-f]{64}")
TagStatus = Literal["promoted", "foreign", "in-use", "previous", "unused", "unverified"]


@dataclass(frozen=True, kw_only=True)
class ListedTag:
    """A tag of an image that builder built.

    `at` is when the tag was moved, or an immutable one pushed; `by` is who moved it. Both may be unknown. `size` is
    that of the compressed layers, in bytes.

    The status of a moving tag is `promoted`, or `foreign` if its journal has not moved it to this image. That of an
    immutable one says whether a moving tag names its image now (`in-use`), did so (`previous`), or never did.
    """

    tag: str
    cell: str
    key: str
    digest: Digest
    size: int
    status: TagStatus
    at: datetime | None
    by: str = ""


@dataclass(frozen=True, kw_only=True)
class _Image:
    manifest: Manifest  # of the image; what a tag names may be an index
    named: Digest
    config: ImageConfig


def fetch_catalogue(repository: ImageRef, registries: Registries) -> tuple[ListedTag, ...]:
    """Fetch all tags of a repository, their manifests and configs; moving tags first, then the newest first."""
    tags = registries.fetch_tags(repository)
    journals = [tag for tag in tags if tag == JOURNAL_TAG or tag.startswith(f"{JOURNAL_TAG}-")]
    promotions = [each for tag in journals for each in fetch_journal(repository.with_tag(tag), registries)]
    refs = {tag: repository.with_tag(tag) for tag in tags if tag not in journals}
    fetched = registries.map(lambda ref: _fetch_image(ref, registries), refs.values())
    images = {tag: image for tag, image in zip(refs, fetched, strict=True) if image and _is_ours(image.config)}
    moving = {image.named for tag, image in images.items() if not IMMUTABLE.fullmatch(tag)}
    once = {move.new for each in promotions for move in each.moves} | {
        move.old for each in promotions for move in each.moves
    }
    listed = [_listed(tag, image, promotions, moving, once) for tag, image in images.items()]
    return tuple(sorted(listed, key=lambda each: (bool(IMMUTABLE.fullmatch(each.tag)), _age(each), each.tag)))


def _age(listed: ListedTag) -> float:
    return -listed.at.timestamp() if listed.at else 0.0


def _fetch_image(ref: ImageRef, registries: Registries) -> _Image | None:
    """What a tag names, with its config; for an index, that of its first image. None if the tag is gone."""
    manifest = registries.fetch_manifest(ref)
    if manifest is None:
        return None
    image = manifest
    if manifest.is_index:
        children = manifest.children
        found = registries.fetch_manifest(ref.with_digest(children[0])) if children else None
        if found is None:
            return None
        image = found
    config = labelled(registries.fetch_config(ref, image), manifest)
    return _Image(manifest=image, named=manifest.digest, config=config)


def _is_ours(config: ImageConfig) -> bool:
    return is_tag(config.labels.get(CELL_LABEL, "")) and bool(_KEY.fullmatch(config.labels.get(KEY_LABEL, "")))


def _listed(
    tag: str, image: _Image, promotions: Sequence[Promotion], moving: set[Digest], once: set[Digest | None]
) -> ListedTag:
    labels: Mapping[str, str] = image.config.labels
    status: TagStatus
    by, at = "", pushed_at(image.manifest)
    if tag.endswith(f"-{UNVERIFIED}"):
        status = "unverified"
    elif IMMUTABLE.fullmatch(tag):
        status = "in-use" if image.named in moving else "previous" if image.named in once else "unused"
    else:
        latest = _latest_move(tag, promotions)
        is_ours = latest is not None and _target(tag, latest) == image.named
        status = "promoted" if is_ours else "foreign"
        by, at = (latest.by, latest.at) if latest and is_ours else ("", None)
    return ListedTag(
        tag=tag, cell=labels[CELL_LABEL], key=labels[KEY_LABEL], digest=image.named, status=status, at=at, by=by,
        size=sum(layer.size for layer in image.manifest.body.layers),
    )  # fmt: skip


def _latest_move(tag: str, promotions: Sequence[Promotion]) -> Promotion | None:
    """The newest promotion that moved a tag; promotions of one journal are newest first."""
    moved = [each for each in promotions if any(move.tag == tag and not move.stays for move in each.moves)]
    return max(moved, key=lambda each: each.at, default=None)


def _target(tag: str, promotion: Promotion) -> Digest | None:
    return next((move.new for move in promotion.moves if move.tag == tag), None)
