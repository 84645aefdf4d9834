"""The content of an image: in the local store, or fetched into it from a registry when it is needed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from builder.errors import RegistryError
from builder.layer.store import LayerStore
from builder.oci.compression import DAMAGED, compression_of, unpacked
from builder.oci.reference import Digest, ImageRef
from builder.oci.registry import Registries

_NO_ROOM: Final = "see if the disk is full, then try again"


class LostBlobError(RegistryError):
    """A blob that an image needs is not where it was, or has other bytes there."""

    def __init__(self, digest: Digest, error: RegistryError) -> None:
        super().__init__(error.what, hint=error.hint)
        self.digest = digest


@dataclass(frozen=True, kw_only=True)
class BlobSource:
    """A repository that has a blob, and the blob's size in bytes."""

    repository: ImageRef
    size: int


@dataclass(frozen=True, kw_only=True)
class Blobs:
    """The content of an image: in the store, or else in the repositories that `origins` names, by digest."""

    store: LayerStore
    registries: Registries
    origins: Mapping[str, BlobSource]

    def open(self, digest: Digest) -> IO[bytes]:
        """Open a blob; first fetch it into the store if it is not there."""
        if not self.store.has(digest):
            origin = self.origins.get(str(digest))
            if origin is None:
                raise LostBlobError(
                    digest, RegistryError(f"{digest} is no longer in {self.store.folder}", hint=_NO_ROOM)
                )
            with self.store.new_blob() as file:
                try:
                    self.registries.download_blob(origin.repository, digest, file, size=origin.size)
                except RegistryError as error:
                    raise LostBlobError(digest, error) from error
                self.store.keep(Path(file.name), digest)
        return self.store.path(digest).open("rb")

    @contextlib.contextmanager
    def open_plain(self, digest: Digest) -> Iterator[IO[bytes]]:
        """Open a blob, unpacked if it is compressed."""
        with self.open(digest) as blob:
            compression = compression_of(blob.read(4))
            blob.seek(0)
            try:
                yield unpacked(blob, compression)
            except DAMAGED as error:
                raise RegistryError(
                    f"the layer {digest} cannot be unpacked: {error}", hint="report it to whoever made the image"
                ) from error
