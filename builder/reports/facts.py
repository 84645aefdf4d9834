"""What reports say of each cell of a run, gathered from its results and from the registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from builder.errors import RegistryError
from builder.image.inputs import ImageInputs, input_changes
from builder.image.render import RenderedImage
from builder.oci.manifest import Manifest
from builder.oci.reference import Digest, ImageRef
from builder.oci.registry import Registries
from builder.publication import Publication
from builder.release.immutable import checks_of
from builder.release.state import fetch_image_inputs, fetch_image_manifest
from builder.run import CellResult
from builder.verify.inside import Check


@dataclass(frozen=True, kw_only=True)
class CellFacts:
    """A cell's outcome. `size` is that of all layers in bytes, `new_size` that of those that its last image lacks.

    Both are None if they are not known. `changes` are those since the last image, one line each; `image` is the moving
    tag with the digest, if the image has one.
    """

    result: CellResult
    image: ImageRef | None
    size: int | None
    new_size: int | None
    changes: tuple[str, ...] = ()

    @property
    def rendered(self) -> RenderedImage:
        """The cell's rendered image."""
        return self.result.rendered

    @property
    def name(self) -> str:
        """The cell's name."""
        return self.rendered.plan.cell.name

    @property
    def checks(self) -> tuple[Check, ...]:
        """The results of the checks that this run made or read, or that an earlier one pushed with the image."""
        return self.result.checks

    def with_checks_of(self, manifest: Manifest | None) -> CellFacts:
        """The same, with the checks that were pushed with the image, if this run made none."""
        if manifest is None or self.result.checks:
            return self
        return replace(self, result=replace(self.result, checks=checks_of(manifest)))


def fetch_facts(done: Publication, registries: Registries) -> tuple[CellFacts, ...]:
    """Gather the facts; what a registry does not tell is left out, because the run itself is over."""
    moved = {move.tag: move.old for move in done.promotion.moves if not move.stays} if done.promotion else {}
    return tuple(registries.map(lambda result: _fetch(result, moved, registries), done.results))


def _fetch(result: CellResult, moved: Mapping[str, Digest | None], registries: Registries) -> CellFacts:
    made = result.published or result.built
    size = result.built.size if result.built else None
    tag = result.rendered.moving_tags[0]
    if result.handed_over:
        return CellFacts(result=result, image=result.handed_over, size=size, new_size=None)
    image = tag.with_digest(made.digest) if made and made.digest else None
    if result.published is None or image is None:
        return CellFacts(result=result, image=image, size=size, new_size=None)
    try:
        return _compare(CellFacts(result=result, image=image, size=size, new_size=None), moved, registries)
    except RegistryError:
        return CellFacts(result=result, image=image, size=size, new_size=None)


def _compare(facts: CellFacts, moved: Mapping[str, Digest | None], registries: Registries) -> CellFacts:
    """Compare a published image with the one that its tag named before this run."""
    image = facts.image
    assert image is not None  # noqa: S101 - for mypy
    manifest = fetch_image_manifest(image.without_tag(), registries)
    new = _layers(manifest)
    facts = replace(facts.with_checks_of(manifest), size=sum(new.values()), new_size=0)
    if str(image.tag) not in moved:
        return facts
    old = moved[str(image.tag)]
    if old is None:
        return replace(facts, new_size=facts.size)
    before, platform = image.with_digest(old).without_tag(), facts.rendered.plan.cell.platform
    shared = _layers(fetch_image_manifest(before, registries, platform))
    inputs = fetch_image_inputs(before, registries, platform)
    return replace(
        facts,
        new_size=sum(size for digest, size in new.items() if digest not in shared),
        changes=input_changes(inputs, ImageInputs.of(facts.rendered)) if inputs else (),
    )


def _layers(manifest: Manifest | None) -> dict[str, int]:
    return {layer.digest: layer.size for layer in manifest.body.layers} if manifest else {}
