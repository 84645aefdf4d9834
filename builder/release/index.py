"""Joins the images of a cell for several platforms in an index, which gets the tags: complete, or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from builder.contract import CELL_LABEL, INDEX_TYPE, KEY_LABEL
from builder.errors import RegistryError
from builder.image.index import RenderedIndex
from builder.matrix.model import Platform
from builder.oci.manifest import Manifest, descriptor
from builder.oci.reference import Digest, ImageRef
from builder.oci.registry import Registries
from builder.release.immutable import put_immutable, with_time


@dataclass(frozen=True, kw_only=True)
class PublishedIndex:
    """An index in the registry under its immutable tag, which has an image for each platform."""

    rendered: RenderedIndex
    digest: Digest


def put_index(index: RenderedIndex, images: Sequence[Digest], registries: Registries) -> PublishedIndex:
    """Put an index of images that are in the registry, in the order of the index, under its immutable tag.

    One that stands there already is kept, unless an image of it was deleted since. Raises RegistryError if one of the
    images is gone, PublishError if the tag names something with another key.
    """
    tag = index.immutable_tag
    standing = registries.fetch_manifest(tag)
    if standing and is_complete(standing, tag, registries):
        return PublishedIndex(rendered=index, digest=put_immutable(tag, index.key, standing, registries))
    annotations = {KEY_LABEL: index.key, CELL_LABEL: index.plan.cell.tag}
    entries = [
        entry
        for image, digest in zip(index.images, images, strict=True)
        for entry in _fetch_entries(tag.with_digest(digest), image.plan.cell.platform, registries)
    ]
    made = with_time(
        Manifest.of({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries, "annotations": annotations})
    )
    if standing:  # it has lost an image
        registries.put_manifest(tag, made)
    return PublishedIndex(rendered=index, digest=put_immutable(tag, index.key, made, registries))


def is_complete(index: Manifest, ref: ImageRef, registries: Registries) -> bool:
    """Whether the registry has everything that an index lists."""
    return all(registries.map(lambda child: registries.fetch_manifest(ref.with_digest(child)), index.children))


def _fetch_entries(ref: ImageRef, platform: Platform, registries: Registries) -> Iterator[Mapping[str, Any]]:
    """The entries for an image (image-index.md); what is an index because of its attestations is not nested."""
    manifest = registries.fetch_manifest(ref)
    if manifest is None:
        raise RegistryError(f"{ref.registry} no longer has {ref.digest} for {platform}", hint="build the image again")
    if manifest.is_index:
        yield from manifest.table["manifests"]
        return
    names = {"os": "linux", "architecture": platform.architecture}
    yield {"mediaType": manifest.media_type, **descriptor(manifest.content), "platform": names}
