"""What the registry has of a cell: its immutable tag, what the moving tags name, and why that is not the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from builder.inputs import INPUTS_LABEL, Inputs, moved
from builder.refs import Digest, ImageRef
from builder.registry import INDEX_TYPES, Manifest, Registries
from builder.render import RenderedImage

State = Literal["up-to-date", "to-promote", "moved", "new"]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A cell at the registry: `digest` is that of its immutable tag, None where there is nothing under its key."""

    rendered: RenderedImage
    digest: Digest | None
    moving: Mapping[str, Digest | None]

    @property
    def state(self) -> State:
        """Whether there is anything to do for the cell, and what."""
        if self.digest is not None:
            return "up-to-date" if set(self.moving.values()) == {self.digest} else "to-promote"
        return "moved" if any(self.moving.values()) else "new"


def standings(rendered: Sequence[RenderedImage], registries: Registries) -> tuple[Standing, ...]:
    """Ask for each cell's tags, one request each: two for a cell without aliases."""
    tags = [tag for each in rendered for tag in each.tags]
    found = dict(zip(tags, registries.each(registries.find, tags), strict=True))
    return tuple(
        Standing(
            rendered=each,
            digest=found[each.immutable_tag],
            moving={str(tag.tag): found[tag] for tag in each.moving_tags},
        )
        for each in rendered
    )


def reasons(standing: Standing, registries: Registries) -> tuple[str, ...]:
    """Say which inputs moved since the image that the cell's moving tag names; a few requests where any did."""
    if standing.state == "to-promote":
        there = [
            f"{tag} names {digest or 'nothing'}" for tag, digest in standing.moving.items() if digest != standing.digest
        ]
        return tuple(f"built already; {each}" for each in there)
    plan = standing.rendered.plan
    if standing.state == "up-to-date" or (standing.state == "new" and not plan.branch):
        return ()
    # A branch that has no image yet is told what it changes of the project's own.
    tag = standing.rendered.moving_tags[0] if standing.state == "moved" else plan.repository.with_tag(plan.cell.name)
    old = image_inputs(tag, registries)
    if old is None and standing.state == "new":
        return ()
    if old is None:
        return (f"{tag.familiar} was not made by this version of builder",)
    return moved(old, Inputs.of(standing.rendered)) or ("a file of a package changed, its version did not",)


def image_manifest(ref: ImageRef, registries: Registries) -> Manifest | None:
    """Return the manifest of the image that a tag or digest names: of an index, that of its first image."""
    manifest = registries.manifest(ref)
    if manifest is not None and manifest.media_type in INDEX_TYPES:
        return registries.manifest(ref.with_digest(manifest.children[0])) if manifest.children else None
    return manifest


def image_inputs(ref: ImageRef, registries: Registries) -> Inputs | None:
    """Return the inputs that an image carries in its label; None where it has none."""
    return Inputs.from_label(image_labels(ref, registries).get(INPUTS_LABEL, ""))


def image_labels(ref: ImageRef, registries: Registries) -> Mapping[str, str]:
    """Return the labels of an image at the registry; none where there is no such image, or it is none."""
    labels: Mapping[str, str] = image_config(ref, registries).get("config", {}).get("Labels") or {}
    return labels


def image_config(ref: ImageRef, registries: Registries) -> Mapping[str, Any]:
    """Return the config of an image at the registry; nothing where there is no such image, or it is none."""
    manifest = image_manifest(ref, registries)
    digest = manifest.table.get("config", {}).get("digest") if manifest else None
    config: Mapping[str, Any] = json.loads(registries.blob(ref, Digest.from_str(digest))) if digest else {}
    return config
