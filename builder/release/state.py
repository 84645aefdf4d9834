"""What the registry has of each cell: its immutable tag, what the moving tags name, and why those differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from builder.contract import INPUTS_LABEL
from builder.image.inputs import ImageInputs, input_changes
from builder.image.render import RenderedImage
from builder.oci.manifest import ImageConfig, Manifest
from builder.oci.reference import Digest, ImageRef
from builder.oci.registry import Registries

Status = Literal["up-to-date", "to-promote", "moved", "new"]


@dataclass(frozen=True, kw_only=True)
class RegisteredImage:
    """An image that the registry has under its key's immutable tag, which only verified images get.

    `RegistryState.image` alone makes one.
    """

    rendered: RenderedImage
    digest: Digest


@dataclass(frozen=True, kw_only=True)
class RegistryState:
    """A cell at the registry: the digests of its immutable tag, None where it has to be built, and of moving tags."""

    rendered: RenderedImage
    digest: Digest | None
    moving: Mapping[str, Digest | None]

    @property
    def image(self) -> RegisteredImage | None:
        """The cell's image at the registry; None where it has to be built."""
        return None if self.digest is None else RegisteredImage(rendered=self.rendered, digest=self.digest)

    @property
    def status(self) -> Status:
        """Whether there is anything to do for the cell, and what."""
        if self.digest is not None:
            return "up-to-date" if set(self.moving.values()) == {self.digest} else "to-promote"
        return "moved" if any(self.moving.values()) else "new"


def fetch_states(rendered: Sequence[RenderedImage], registries: Registries) -> tuple[RegistryState, ...]:
    """Ask for each cell's tags, one request each: two for a cell without aliases."""
    tags = [tag for each in rendered for tag in each.tags]
    found = dict(zip(tags, registries.map(registries.fetch_digest, tags), strict=True))
    return tuple(
        RegistryState(
            rendered=each,
            digest=found[each.immutable_tag],
            moving={str(tag.tag): found[tag] for tag in each.moving_tags},
        )
        for each in rendered
    )


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What has to be done for a cell, and why, a line each."""

    status: Status
    reasons: tuple[str, ...]


def fetch_explanations(rendered: Sequence[RenderedImage], registries: Registries) -> dict[str, Explanation]:
    """Ask the registry about each cell; return what has to be done for it, by the cell's name."""
    return {
        state.rendered.plan.cell.name: Explanation(status=state.status, reasons=_fetch_reasons(state, registries))
        for state in fetch_states(rendered, registries)
    }


def _fetch_reasons(state: RegistryState, registries: Registries) -> tuple[str, ...]:
    """Say which inputs moved since the image that the cell's moving tag names; a few requests where any did."""
    if state.status == "to-promote":
        stale = [f"{tag} names {digest or 'nothing'}" for tag, digest in state.moving.items() if digest != state.digest]
        return tuple(f"already built; {each}" for each in stale)
    plan = state.rendered.plan
    if state.status == "up-to-date" or (state.status == "new" and not plan.branch):
        return ()
    # A branch without an image yet is compared with the project's own.
    tag = state.rendered.moving_tags[0] if state.status == "moved" else plan.repository.with_tag(plan.cell.name)
    old = fetch_image_inputs(tag, registries)
    if old is None and state.status == "new":
        return ()
    if old is None:
        return (f"{tag.familiar} was not made by this version of builder",)
    return input_changes(old, ImageInputs.of(state.rendered)) or ("a package's file changed, its version did not",)


def fetch_image_manifest(ref: ImageRef, registries: Registries) -> Manifest | None:
    """Return the manifest of the image that a tag or digest names; for an index, that of its first image."""
    manifest = registries.fetch_manifest(ref)
    if manifest is not None and manifest.is_index:
        return registries.fetch_manifest(ref.with_digest(manifest.children[0])) if manifest.children else None
    return manifest


def fetch_image_inputs(ref: ImageRef, registries: Registries) -> ImageInputs | None:
    """Return the inputs that an image carries in its label; None where it has none."""
    return ImageInputs.from_label(fetch_image_config(ref, registries).labels.get(INPUTS_LABEL, ""))


def fetch_image_config(ref: ImageRef, registries: Registries) -> ImageConfig:
    """Return the config of an image at the registry; an empty one where there is no such image."""
    manifest = fetch_image_manifest(ref, registries)
    return registries.fetch_config(ref, manifest) if manifest else ImageConfig()
