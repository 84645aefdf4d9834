"""Finds layers in the repository of layers that no image uses."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime
from typing import Final

from builder.contract import CREATED, LAYER_KEY
from builder.layer.find import LayerRepositories
from builder.oci.manifest import Manifest
from builder.oci.reference import ImageRef
from builder.oci.registry import Registries
from builder.release.prune import Candidate

_TAG: Final = re.compile(r"(?P<key>[0-9a-f]{64})(-.+)?")


def fetch_unused_layers(
    repositories: LayerRepositories, deleted: Collection[ImageRef], registries: Registries, made_after: datetime
) -> tuple[Candidate, ...]:
    """Fetch the tags of layers that none of the images has, except the images in `deleted`.

    Layers that were made after a time are kept, because an unfinished run may need them. A layer's tag holds the layer
    for runs that look for it; images have their own.
    """
    tags = [tag for tag in registries.fetch_tags(repositories.layers) if _TAG.fullmatch(tag)]
    if not tags:
        return ()
    gone = {ref.tag for ref in deleted}
    kept = [repositories.images.with_tag(tag) for tag in registries.fetch_tags(repositories.images) if tag not in gone]
    images = registries.map(registries.fetch_manifest, kept)
    used = {key for manifest in images if manifest for key in _keys(manifest)}
    unused = [repositories.layers.with_tag(tag) for tag in tags if tag[:64] not in used]
    manifests = zip(unused, registries.map(registries.fetch_manifest, unused), strict=True)
    return tuple(
        Candidate(ref=ref, digest=manifest.digest, children=())
        for ref, manifest in manifests
        if manifest and _made(manifest) < made_after.isoformat("T", "seconds")
    )


def _keys(manifest: Manifest) -> set[str]:
    return {(layer.annotations or {}).get(LAYER_KEY, "") for layer in manifest.body.layers}


def _made(manifest: Manifest) -> str:
    """When a layer was pushed, in RFC 3339; of one without a time, that is now."""
    annotations = manifest.body.annotations or {}
    return annotations.get(CREATED, "9999")
