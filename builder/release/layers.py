"""Finds layers in the repository of layers that no image uses."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime
from typing import Final

from builder.layer.find import LayerRepositories, layer_keys
from builder.oci.reference import ImageRef
from builder.oci.registry import Registries
from builder.release.immutable import pushed_at

_TAG: Final = re.compile(r"(?P<key>[0-9a-f]{64})(-.+)?")


def fetch_unused_layers(
    repositories: LayerRepositories, deleted: Collection[ImageRef], registries: Registries, pushed_after: datetime
) -> tuple[ImageRef, ...]:
    """Fetch the tags and digests of layers that none of the images has, except the images in `deleted`.

    Layers that were pushed after a time are kept, because an unfinished run may need them.
    """
    tags = [tag for tag in registries.fetch_tags(repositories.layers) if _TAG.fullmatch(tag)]
    if not tags:
        return ()
    gone = {ref.tag for ref in deleted}
    kept = [repositories.images.with_tag(tag) for tag in registries.fetch_tags(repositories.images) if tag not in gone]
    images = [manifest for manifest in registries.map(registries.fetch_manifest, kept) if manifest]
    children = [repositories.images.with_digest(child) for manifest in images for child in manifest.children]
    images += [manifest for manifest in registries.map(registries.fetch_manifest, children) if manifest]
    used = {key for manifest in images for key in layer_keys(manifest)}
    unused = [repositories.layers.with_tag(tag) for tag in tags if tag[:64] not in used]
    manifests = zip(unused, registries.map(registries.fetch_manifest, unused), strict=True)
    return tuple(
        ref.with_digest(manifest.digest)
        for ref, manifest in manifests
        if manifest and (pushed := pushed_at(manifest)) and pushed < pushed_after
    )
