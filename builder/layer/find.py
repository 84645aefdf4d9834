"""Finds layers by key: in the image that the cell's tag names now, in the repository of layers, in the local store.

A layer of a branch is found by that branch alone, one of the default branch by all: its tag in the repository of layers
is the key, on a branch followed by the branch's slug. So a merge request cannot make a layer of the default branch's
images, unless it may write that tag itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from builder.contract import LAYER_DIFF_ID, LAYER_KEY, LAYER_TREES, LAYER_TYPE
from builder.layer.plan import Layer, LayerPlan
from builder.layer.store import LayerStore, StoredLayer
from builder.matrix.model import Platform
from builder.oci.manifest import Descriptor, DigestText, Manifest
from builder.oci.reference import Digest, ImageRef, is_digest
from builder.oci.registry import Registries
from builder.parse import MalformedError, parse_value

_TYPES = {f"{LAYER_TYPE}+gzip", f"{LAYER_TYPE}+zstd"}


@dataclass(frozen=True, kw_only=True)
class FoundLayer:
    """A layer that need not be made; `repository` has its blob, or None if only the local store has it.

    It is `proven` if an image with it passed every check.
    """

    stored: StoredLayer
    repository: ImageRef | None
    proven: bool = False


@dataclass(frozen=True, kw_only=True)
class FoundLayers:
    """The layers of a plan that need not be made, by key, and the keys of the cell's last image, the lowest first."""

    layers: Mapping[str, FoundLayer]
    order: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LayerRepositories:
    """Where layers are in registries: in the repository of a run's images, and in one for layers alone."""

    images: ImageRef
    layers: ImageRef
    branch: str

    def tag(self, key: str) -> ImageRef:
        """The tag under which this run stores a layer."""
        return self.layers.with_tag(_tag(key, self.branch))

    def tags(self, key: str) -> list[ImageRef]:
        """The tags under which this run finds a layer."""
        return [self.layers.with_tag(_tag(key, branch)) for branch in dict.fromkeys([self.branch, ""])]

    def image_tags(self, name: str) -> list[ImageRef]:
        """The tags of earlier images of the cell whose layers this run may use."""
        return [self.images.with_tag(_tag(name, branch)) for branch in dict.fromkeys([self.branch, ""])]


def find_stored(layers: Iterable[Layer], store: LayerStore, branch: str) -> dict[str, FoundLayer]:
    """Find layers in the local store, by key."""
    stored = (store.find(layer.key, branch) for layer in layers)
    return {
        each.key: FoundLayer(stored=each, repository=None, proven=store.is_proven(Digest.from_str(each.digest)))
        for each in stored
        if each
    }


def fetch_found(plan: LayerPlan, repositories: LayerRepositories, registries: Registries) -> FoundLayers:
    """Find the plan's layers in registries.

    One request finds those of the cell's last image; each other layer takes one more. Layers whose blobs the registry
    has lost are not found.
    """
    keys = {layer.key for layer in plan.layers}
    cell = plan.rendered.plan.cell
    tags = repositories.image_tags(cell.tag)
    images = [(tag, manifest) for tag in tags if (manifest := _fetch_last(tag, cell.platform, registries))]
    found: dict[str, FoundLayer] = {}
    for tag, manifest in images:
        in_image = _in_manifest(manifest, keys, tag)  # of an image that passed every check: only those are promoted
        found = {**{key: replace(each, proven=True) for key, each in in_image.items()}, **found}
    found |= _fetch_single(sorted(keys - found.keys()), repositories, registries)

    def is_there(each: FoundLayer) -> bool:
        return each.repository is not None and registries.has_blob(each.repository, Digest.from_str(each.stored.digest))

    there = registries.map(is_there, found.values())
    return FoundLayers(
        layers={key: each for (key, each), is_kept in zip(found.items(), there, strict=True) if is_kept},
        order=layer_keys(images[0][1]) if images else (),
    )


def _fetch_last(tag: ImageRef, platform: Platform, registries: Registries) -> Manifest | None:
    """Fetch the manifest of the image that a tag names, of an index of several platforms that for this one."""
    manifest = registries.fetch_manifest(tag)
    if manifest is None or not manifest.is_index:
        return manifest
    child = manifest.child_for(platform.architecture)
    return registries.fetch_manifest(tag.with_digest(child)) if child else None


def layer_keys(manifest: Manifest) -> tuple[str, ...]:
    """The keys of an image's layers, the lowest first, without those of its base."""
    keys = ((layer.annotations or {}).get(LAYER_KEY, "") for layer in manifest.body.layers)
    return tuple(key for key in keys if key)


def _fetch_single(
    keys: Sequence[str], repositories: LayerRepositories, registries: Registries
) -> dict[str, FoundLayer]:
    """Find layers in the repository of layers."""
    tags = [tag for key in keys for tag in repositories.tags(key)]
    found: dict[str, FoundLayer] = {}
    for tag, manifest in zip(tags, registries.map(registries.fetch_manifest, tags), strict=True):
        found |= _in_manifest(manifest, set(keys) - found.keys(), tag) if manifest else {}
    return found


def _in_manifest(manifest: Manifest, keys: set[str], tag: ImageRef) -> dict[str, FoundLayer]:
    layers = (_parsed(entry) for entry in manifest.body.layers)
    return {
        each.key: FoundLayer(stored=each, repository=tag) for each in layers if each is not None and each.key in keys
    }


def _parsed(entry: Descriptor) -> StoredLayer | None:
    annotations = entry.annotations or {}
    key, diff_id = annotations.get(LAYER_KEY, ""), annotations.get(LAYER_DIFF_ID, "")
    if not is_digest(diff_id) or entry.media_type not in _TYPES:
        return None
    try:
        trees = parse_value(dict[str, DigestText], annotations.get(LAYER_TREES, "{}"))
    except MalformedError:
        return None
    return StoredLayer(
        key=key, digest=entry.digest, size=entry.size, media_type=entry.media_type, diff_id=diff_id, trees=trees
    )


def _tag(name: str, branch: str) -> str:
    return f"{name}-{branch}" if branch else name
