"""The images of a cell for several platforms, which share its tags: an index with one for each, or none at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from builder.contract import KEY_LENGTH
from builder.image.plan import ImagePlan
from builder.image.render import RenderedImage
from builder.oci.reference import ImageRef


@dataclass(frozen=True, kw_only=True)
class RenderedIndex:
    """An image for each platform of a cell, sorted by platform."""

    images: tuple[RenderedImage, ...]

    @property
    def plan(self) -> ImagePlan:
        """The plan of one of the images; what concerns repository, tags and branch is the same in all."""
        return self.images[0].plan

    @property
    def key(self) -> str:
        """The SHA-256 of the images' platforms and keys."""
        lines = (f"{image.plan.cell.platform} {image.key}\n" for image in self.images)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def immutable_tag(self) -> ImageRef:
        """The tag that never moves: `<python>-<base>-<first digits of the key>`."""
        return self.plan.repository.with_tag(f"{self.plan.cell.tag}-{self.key[:KEY_LENGTH]}")

    @property
    def moving_tags(self) -> tuple[ImageRef, ...]:
        """The tags that jobs use: `<python>-<base>` and the cell's aliases."""
        return self.images[0].moving_tags


def indexes_of(rendered: Iterable[RenderedImage]) -> tuple[RenderedIndex, ...]:
    """The indexes of which all images are there; cells with one platform have none."""
    groups: dict[str, list[RenderedImage]] = {}
    for image in rendered:
        if image.plan.cell.platforms:
            groups.setdefault(image.plan.cell.tag, []).append(image)
    ordered = (sorted(group, key=lambda image: str(image.plan.cell.platform)) for group in groups.values())
    return tuple(
        RenderedIndex(images=tuple(group)) for group in ordered if len(group) == len(group[0].plan.cell.platforms)
    )
