"""The state of each cell in the registry: its immutable tag, its moving tags, and why it needs a rebuild."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from builder.contract import INPUTS_LABEL, KEY_LABEL
from builder.image.index import indexes_of
from builder.image.inputs import ImageInputs, input_changes
from builder.image.render import RenderedImage
from builder.matrix.model import Platform
from builder.oci.manifest import ConfigSection, ImageConfig, Manifest
from builder.oci.reference import Digest, ImageRef
from builder.oci.registry import Registries

Status = Literal["up-to-date", "to-promote", "moved", "new"]


@dataclass(frozen=True, kw_only=True)
class RegisteredImage:
    """An image that is in the registry under its immutable tag, which only verified images get.

    Only `RegistryState.image` constructs it.
    """

    rendered: RenderedImage
    digest: Digest


@dataclass(frozen=True, kw_only=True)
class RegistryState:
    """The digests that a cell's tags name in the registry.

    `digest` is that of the immutable tag; `moving` maps the moving tags to theirs. None means that the tag is missing.
    With several platforms, moving tags name an index, whose own immutable tag names `index`; a run for one of the
    platforms moves no tags, so `moving` is empty then.
    """

    rendered: RenderedImage
    digest: Digest | None
    moving: Mapping[str, Digest | None]
    index: Digest | None = None

    @property
    def image(self) -> RegisteredImage | None:
        """The cell's image in the registry; None if it needs a build."""
        return None if self.digest is None else RegisteredImage(rendered=self.rendered, digest=self.digest)

    @property
    def target(self) -> Digest | None:
        """What the moving tags should name; None if that is not in the registry yet."""
        return self.index if self.rendered.plan.cell.platforms else self.digest

    @property
    def status(self) -> Status:
        """What the cell needs: nothing, a promotion, a rebuild (`moved`: an input changed), or a first build."""
        if self.digest is not None:
            return "up-to-date" if set(self.moving.values()) <= {self.target} - {None} else "to-promote"
        return "moved" if any(self.moving.values()) else "new"


def fetch_states(rendered: Sequence[RenderedImage], registries: Registries) -> tuple[RegistryState, ...]:
    """Fetch the digests of all tags of each cell, with one request per tag."""
    indexes = {image.key: index.immutable_tag for index in indexes_of(rendered) for image in index.images}
    tags = list(dict.fromkeys([*(tag for image in rendered for tag in image.tags), *indexes.values()]))
    digests = dict(zip(tags, registries.map(registries.fetch_digest, tags), strict=True))

    def state(image: RenderedImage) -> RegistryState:
        index = indexes.get(image.key)
        moving = image.moving_tags if index or not image.plan.cell.platforms else ()
        return RegistryState(
            rendered=image,
            digest=digests[image.immutable_tag],
            moving={str(tag.tag): digests[tag] for tag in moving},
            index=digests[index] if index else None,
        )

    return tuple(map(state, rendered))


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What a cell needs, and the reasons, one line each."""

    status: Status
    reasons: tuple[str, ...]


def fetch_explanations(rendered: Sequence[RenderedImage], registries: Registries) -> dict[str, Explanation]:
    """Ask the registry about each cell; return what it needs, by the cell's name."""
    return {
        state.rendered.plan.cell.name: Explanation(status=state.status, reasons=_fetch_reasons(state, registries))
        for state in fetch_states(rendered, registries)
    }


def _fetch_reasons(state: RegistryState, registries: Registries) -> tuple[str, ...]:
    """Describe the inputs that changed since the image that the cell's moving tag names; a few requests if any did."""
    if state.status == "to-promote":
        stale = [f"{tag} names {digest or 'nothing'}" for tag, digest in state.moving.items() if digest != state.target]
        return tuple(f"already built; {line}" for line in stale)
    plan = state.rendered.plan
    if state.status == "up-to-date" or (state.status == "new" and not plan.branch):
        return ()
    # A branch without an image is compared with the project's own image.
    tag = state.rendered.moving_tags[0] if state.status == "moved" else plan.repository.with_tag(plan.cell.tag)
    old = fetch_image_inputs(tag, registries, plan.cell.platform)
    if old is None and state.status == "new":
        return ()
    if old is None:
        return (f"{tag.familiar} was not built by this version of builder",)
    return input_changes(old, ImageInputs.of(state.rendered)) or ("a package's file changed, but not its version",)


def fetch_image_manifest(ref: ImageRef, registries: Registries, platform: Platform | None = None) -> Manifest | None:
    """Fetch the manifest of the image that a tag or digest names; of an index that for the platform, else its first."""
    return _fetch_chosen(registries.fetch_manifest(ref), ref, registries, platform)


def _fetch_chosen(
    named: Manifest | None, ref: ImageRef, registries: Registries, platform: Platform | None
) -> Manifest | None:
    if named is None or not named.is_index:
        return named
    chosen = named.child_for(platform.architecture) if platform else None
    return registries.fetch_manifest(ref.with_digest(chosen or named.children[0])) if named.children else None


def fetch_image_inputs(ref: ImageRef, registries: Registries, platform: Platform | None = None) -> ImageInputs | None:
    """Fetch the inputs in the label of an image; None if it has none."""
    return ImageInputs.from_label(fetch_image_config(ref, registries, platform).labels.get(INPUTS_LABEL, ""))


def fetch_image_config(ref: ImageRef, registries: Registries, platform: Platform | None = None) -> ImageConfig:
    """Fetch the config of an image, labelled as what the reference names; an empty one if there is no such image."""
    named = registries.fetch_manifest(ref)
    image = _fetch_chosen(named, ref, registries, platform)
    return labelled(registries.fetch_config(ref, image), named) if image else ImageConfig()


def labelled(config: ImageConfig, named: Manifest | None) -> ImageConfig:
    """The config of an image; with cell and key of the index of several platforms, if one is named."""
    own = (named.body.annotations if named and named.is_index else None) or {}
    if KEY_LABEL not in own:
        return config
    section = (config.config or ConfigSection()).model_copy(update={"labels": {**config.labels, **own}})
    return config.model_copy(update={"config": section})
