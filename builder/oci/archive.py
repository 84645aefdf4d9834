"""A saved image (`docker save`): its manifest, config, layers and attestations, read without unpacking the tar.

The layout is the OCI image layout (image-layout.md of the image specification) or, from engines that do not write it,
Docker's own with a `manifest.json`.
"""

from __future__ import annotations

import contextlib
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

from pydantic import Field

from builder.contract import INDEX_TYPES
from builder.errors import EngineError
from builder.oci.attestation import SUBJECT, Attestation
from builder.oci.compression import DAMAGED, Compressed, compression_of, unpacked
from builder.oci.manifest import Descriptor, HistoryEntry, ImageConfig, Manifest, ManifestBody
from builder.parse import Document, MalformedError, parse_or_raise, parse_value

_UNREADABLE: Final = EngineError("the engine saved an archive that is not an image", hint="update the engine")
_MOST_INDEXES: Final = 8  # nested in each other; BuildKit writes two


class _DockerEntry(Document):
    """An image in Docker's own layout (`manifest.json`)."""

    config: str = Field(alias="Config")
    layers: tuple[str, ...] = Field(alias="Layers")


@dataclass(frozen=True, kw_only=True)
class ArchiveLayer:
    """A layer in the archive. `size` is in bytes, as stored: compressed unless `compression` is None."""

    member: str
    size: int
    compression: Compressed | None

    @property
    def digest(self) -> str:
        """Its digest `sha256:…`, which is its name in the OCI layout."""
        return self.member.removeprefix("blobs/").replace("/", ":")


class ImageArchive:
    """An open archive of one image; a context manager.

    Raises EngineError if the archive is not an image, or lacks some of its layers.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._tar = tarfile.open(path)  # noqa: SIM115 - closed by __exit__
        except tarfile.TarError as error:
            raise EngineError(f"{_UNREADABLE.what}: {error}", hint=_UNREADABLE.hint) from error
        try:
            self._read()
        except BaseException:
            self._tar.close()
            raise

    def _read(self) -> None:
        self._names = set(self._tar.getnames())
        self.entry: Mapping[str, Any] = {}  # the image's entry in its index; empty in Docker's own layout
        self.attestations: tuple[Attestation, ...] = ()
        config, layers = self._read_oci() if "index.json" in self._names else self._read_docker()
        self.config_bytes = self._bytes(config)
        self.config = parse_or_raise(ImageConfig, self.config_bytes, _UNREADABLE)
        self.layers = tuple(self._layer(name) for name in layers)

    def _read_oci(self) -> tuple[str, list[str]]:
        """Read the OCI layout; return the member names of the config and of the layers."""
        index = self._innermost(self._bytes("index.json"))
        image, self.entry = self._images(index)[0]
        self.attestations = tuple(self._attestations(index, image))
        manifest = parse_or_raise(ManifestBody, self._bytes(_blob(image)), _UNREADABLE)
        if manifest.config is None:
            raise _UNREADABLE
        return _blob(manifest.config), [_blob(layer) for layer in manifest.layers]

    def _read_docker(self) -> tuple[str, list[str]]:
        try:
            (entry,) = parse_value(tuple[_DockerEntry], self._bytes("manifest.json"))
        except MalformedError as error:
            raise EngineError(f"{_UNREADABLE.what}: manifest.json: {error}", hint=_UNREADABLE.hint) from error
        return entry.config, list(entry.layers)

    def __enter__(self) -> ImageArchive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tar.close()

    @property
    def size(self) -> int:
        """The size of all layers in bytes, as stored."""
        return sum(layer.size for layer in self.layers)

    @property
    def history(self) -> tuple[HistoryEntry, ...]:
        """The history in the config, oldest entry first."""
        return self.config.history or ()

    def split(self, marker: str) -> tuple[tuple[ArchiveLayer, ...], tuple[ArchiveLayer, ...]]:
        """Split the layers at the first history entry whose `created_by` contains the marker.

        Returns the layers before it and those after it. If no entry contains the marker, or the history does not match
        the layers, all layers count as after it.
        """
        with_layer = [entry for entry in self.history if not entry.empty_layer]
        below = 0
        for entry in self.history if len(with_layer) == len(self.layers) else ():
            if marker in entry.created_by:
                return self.layers[:below], self.layers[below:]
            below += not entry.empty_layer
        return (), self.layers

    def files(self, layer: ArchiveLayer) -> Iterator[tuple[str, bytes]]:
        """Yield the name and content of each regular file of a layer, in the layer's order."""
        for entry, content in self.entries(layer):
            if entry.isreg():
                yield entry.name, content

    def entries(self, layer: ArchiveLayer) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
        """Yield each entry of a layer with its content, which is empty unless it is a regular file."""
        with _layer_errors(layer), self.open_plain(layer) as plain, tarfile.open(fileobj=plain, mode="r|") as layer_tar:
            for entry in layer_tar:
                content = layer_tar.extractfile(entry) if entry.isreg() else None
                yield entry, content.read() if content else b""

    def open_raw(self, layer: ArchiveLayer) -> IO[bytes]:
        """Open a layer as it is stored."""
        return self._open(layer.member)

    def open_plain(self, layer: ArchiveLayer) -> IO[bytes]:
        """Open a layer's tar, decompressed."""
        return unpacked(self._open(layer.member), layer.compression)

    def _layer(self, member: str) -> ArchiveLayer:
        with self._open(member) as raw:
            start = raw.read(4)
        size = self._tar.getmember(member).size
        return ArchiveLayer(member=member, size=size, compression=compression_of(start))

    def _open(self, name: str) -> IO[bytes]:
        file = self._tar.extractfile(name) if name in self._names else None
        if file is None:
            # containerd's store leaves out pulled layers that it had already unpacked for another image.
            raise EngineError(
                "the engine saved only a part of the image", hint="build it here, or pull it into an empty engine"
            )
        return file

    def _bytes(self, name: str) -> bytes:
        with self._open(name) as file:
            return file.read()

    def _innermost(self, index: bytes) -> bytes:
        """Follow nested indexes to the one that lists the image's manifest."""
        for _ in range(_MOST_INDEXES):
            descriptor, _ = self._images(index)[0]
            content = self._bytes(_blob(descriptor))
            if parse_or_raise(ManifestBody, content, _UNREADABLE).media_type not in INDEX_TYPES:
                return index
            index = content
        raise _UNREADABLE

    def _images(self, index: bytes) -> list[tuple[Descriptor, Mapping[str, Any]]]:
        """The index's entries for images that are in the archive."""
        images = [pair for pair in self._entries(index) if not pair[0].is_attestation]
        if not images:
            raise _UNREADABLE
        return images

    def _entries(self, index: bytes) -> list[tuple[Descriptor, Mapping[str, Any]]]:
        """The index's entries whose content is in the archive, each parsed and as raw JSON.

        An engine leaves out the other platforms of an image that it pulled.
        """
        parsed = parse_or_raise(ManifestBody, index, _UNREADABLE).manifests
        pairs = zip(parsed, json.loads(index).get("manifests", ()), strict=True)
        return [pair for pair in pairs if _blob(pair[0]) in self._names]

    def _attestations(self, index: bytes, image: Descriptor) -> Iterator[Attestation]:
        for entry, table in self._entries(index):
            if entry.is_attestation and (entry.annotations or {}).get(SUBJECT) == image.digest:
                manifest = Manifest(content=self._bytes(_blob(entry)), media_type=entry.media_type)
                parts = [*manifest.body.layers, *([manifest.body.config] if manifest.body.config else [])]
                blobs = {part.digest: self._bytes(_blob(part)) for part in parts}
                yield Attestation(entry=table, manifest=manifest, blobs=blobs)


@contextlib.contextmanager
def _layer_errors(layer: ArchiveLayer) -> Iterator[None]:
    """Turn what the tar and compression libraries raise into EngineError."""
    try:
        yield
    except DAMAGED as error:
        raise EngineError(f"layer {layer.digest} cannot be unpacked: {error}", hint=_UNREADABLE.hint) from error


def _blob(descriptor: Descriptor) -> str:
    return "blobs/" + descriptor.digest.replace(":", "/")
