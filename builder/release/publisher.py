"""Publishers: one that pushes to the registry, and one for dry runs. A run takes the same steps with both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Protocol

from builder.image.index import RenderedIndex
from builder.layer.assemble import AssembledImage
from builder.layer.find import LayerRepositories
from builder.layer.plan import Compression
from builder.oci.reference import Digest, ImageRef
from builder.oci.registry import Registries
from builder.process import uninterrupted
from builder.release.index import PublishedIndex, put_index
from builder.release.journal import Move, Promotion
from builder.release.lease import held
from builder.release.promote import PlannedImage, promote
from builder.release.publish import Content, Publishable, PublishedImage, push, push_unverified, put_blobs, put_layers
from builder.release.sent import OnSent
from builder.verify.runner import Built, content_of


def _ignore(_: int, __: int) -> None:
    """Nobody watches."""


class Publisher(Protocol):
    """Publishes verified images, and moves the tags that jobs use. `on_sent` is told how much of an image is there."""

    def upload(self, image: AssembledImage, on_sent: OnSent = _ignore) -> None:
        """Upload blobs of an image that is not verified yet, so that `push` takes less time."""

    def push(self, image: Publishable, content: Content, on_sent: OnSent = _ignore) -> PublishedImage | PlannedImage:
        """Upload an image, its immutable tag, and the layers that other images may use."""

    def push_unverified(self, built: Built, on_sent: OnSent = _ignore) -> Digest | None:
        """Upload an image for a job that verifies it; return its digest, if it has one already."""

    def put_index(self, index: RenderedIndex, images: Sequence[Digest]) -> PublishedIndex | PlannedImage:
        """Put an index of images that are in the registry, which moving tags can name."""

    def move(self, journal_tag: ImageRef, moves: Sequence[Move], *, latest: Promotion | None = None) -> Promotion:
        """Move tags, all or none, and record it in the journal; with `latest`, only if that is the latest promotion."""


@dataclass(frozen=True, kw_only=True)
class RegistryPublisher:
    """Publishes to the registry. See `Publisher`."""

    registries: Registries
    compression: Compression
    repositories: LayerRepositories | None = None

    def upload(self, image: AssembledImage, on_sent: OnSent = _ignore) -> None:
        """See `Publisher.upload`."""
        put_blobs(image, image.rendered.immutable_tag, self.registries, on_sent)

    def push(self, image: Publishable, content: Content, on_sent: OnSent = _ignore) -> PublishedImage:
        """See `Publisher.push`."""
        published = push(image, content, self.registries, self.compression, on_sent)
        if self.repositories and isinstance(content, AssembledImage):
            put_layers(content, self.repositories, self.registries)
        return published

    def push_unverified(self, built: Built, on_sent: OnSent = _ignore) -> Digest:
        """See `Publisher.push_unverified`."""
        return push_unverified(built.rendered, content_of(built), self.registries, self.compression, on_sent)

    def put_index(self, index: RenderedIndex, images: Sequence[Digest]) -> PublishedIndex:
        """See `Publisher.put_index`."""
        return put_index(index, images, self.registries)

    def move(self, journal_tag: ImageRef, moves: Sequence[Move], *, latest: Promotion | None = None) -> Promotion:
        """See `Publisher.move`. Ctrl-C takes effect afterwards: the moves take a second or two."""
        with held(journal_tag, self.registries) as lease, uninterrupted():
            return promote(journal_tag, moves, self.registries, lease, latest=latest)


@dataclass(frozen=True, kw_only=True)
class DryRunPublisher:
    """Publishes nothing; returns what a real run would publish. See `Publisher`."""

    def upload(self, image: AssembledImage, on_sent: OnSent = _ignore) -> None:
        """See `Publisher.upload`."""

    def push(self, image: Publishable, content: Content, on_sent: OnSent = _ignore) -> PlannedImage:  # noqa: ARG002
        """See `Publisher.push`."""
        return PlannedImage(rendered=image.rendered)

    def push_unverified(self, built: Built, on_sent: OnSent = _ignore) -> None:
        """See `Publisher.push_unverified`."""

    def put_index(self, index: RenderedIndex, images: Sequence[Digest]) -> PlannedImage:  # noqa: ARG002
        """See `Publisher.put_index`."""
        return PlannedImage(rendered=index)

    def move(self, journal_tag: ImageRef, moves: Sequence[Move], *, latest: Promotion | None = None) -> Promotion:  # noqa: ARG002
        """See `Publisher.move`."""
        real = tuple(move for move in moves if not move.stays)
        return Promotion(at=datetime.now(timezone.utc), moves=real, complete=False)
