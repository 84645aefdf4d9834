"""A saved image (`docker save`): its manifest, config, layers and attestations, read from the tar without unpacking it.

Layouts: the OCI image layout, and where an engine writes none, Docker's own `manifest.json`.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Literal

import zstandard
from isal import igzip
from pydantic import Field

from builder.contract import INDEX_TYPES
from builder.errors import EngineError
from builder.oci.attestation import SUBJECT, Attestation
from builder.oci.manifest import Descriptor, HistoryEntry, ImageConfig, Manifest, ManifestBody
from builder.parse import Document, MalformedError, expect, value

_MAGICS: Final[Mapping[Literal["gzip", "zstd"], bytes]] = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}
_UNREADABLE: Final = EngineError("the engine handed out an archive that is not an image", hint="update the engine")


class _DockerEntry(Document):
    """An image in Docker's own layout (`manifest.json`)."""

    config: str = Field(alias="Config")
    layers: tuple[str, ...] = Field(alias="Layers")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer as it lies in the archive: `size` is in bytes, compressed where the archive has it so."""

    member: str
    size: int
    compression: Literal["gzip", "zstd"] | None

    @property
    def digest(self) -> str:
        """Its name in the OCI layout, `sha256:…`."""
        return self.member.removeprefix("blobs/").replace("/", ":")


class ImageArchive:
    """An open archive of one image; a context manager."""

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path)  # noqa: SIM115 - closed by __exit__
        try:
            self._read()
        except BaseException:
            self._tar.close()
            raise

    def _read(self) -> None:
        self._names = set(self._tar.getnames())
        self.entry: Mapping[str, Any] = {}  # the image's place in its index; empty in Docker's own layout
        self.attestations: tuple[Attestation, ...] = ()
        config, layers = self._read_oci() if "index.json" in self._names else self._read_docker()
        self.config_bytes = self._bytes(config)
        self.config = expect(ImageConfig, self.config_bytes, _UNREADABLE)
        self.layers = tuple(self._layer(name) for name in layers)

    def _read_oci(self) -> tuple[str, list[str]]:
        """Read the OCI layout; return the names of the config and of the layers."""
        index = self._innermost(self._bytes("index.json"))
        found, self.entry = self._images(index)[0]
        self.attestations = tuple(self._attestations(index, found))
        manifest = expect(ManifestBody, self._bytes(_blob(found)), _UNREADABLE)
        if manifest.config is None:
            raise _UNREADABLE
        return _blob(manifest.config), [_blob(layer) for layer in manifest.layers]

    def _read_docker(self) -> tuple[str, list[str]]:
        try:
            (entry,) = value(tuple[_DockerEntry], self._bytes("manifest.json"))
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
        """Bytes of all layers together."""
        return sum(layer.size for layer in self.layers)

    @property
    def history(self) -> tuple[HistoryEntry, ...]:
        """The config's history, oldest first."""
        return self.config.history or ()

    def split(self, marker: str) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
        """The layers made before, and those made after, the history entry whose `created_by` has the marker.

        Where none has, or the history does not fit the layers, all count as made after.
        """
        made = [entry for entry in self.history if not entry.empty_layer]
        below = 0
        for entry in self.history if len(made) == len(self.layers) else ():
            if marker in entry.created_by:
                return self.layers[:below], self.layers[below:]
            below += not entry.empty_layer
        return (), self.layers

    def files(self, layer: Layer) -> Iterator[tuple[str, bytes]]:
        """Yield the name and content of each regular file of a layer, in the layer's order."""
        for entry, content in self.entries(layer):
            if entry.isreg():
                yield entry.name, content

    def entries(self, layer: Layer) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
        """Yield each entry of a layer with its content, which is empty unless it is a regular file."""
        with self.open_plain(layer) as plain, tarfile.open(fileobj=plain, mode="r|") as layer_tar:
            for entry in layer_tar:
                content = layer_tar.extractfile(entry) if entry.isreg() else None
                yield entry, content.read() if content else b""

    def open_raw(self, layer: Layer) -> IO[bytes]:
        """Open a layer as it lies in the archive."""
        return self._open(layer.member)

    def open_plain(self, layer: Layer) -> IO[bytes]:
        """Open a layer's tar, unpacked."""
        raw = self._open(layer.member)
        if layer.compression == "gzip":
            return igzip.IGzipFile(fileobj=raw)  # type: ignore[no-untyped-call,return-value]
        if layer.compression == "zstd":
            return zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
        return raw

    def _layer(self, name: str) -> Layer:
        with self._open(name) as raw:
            start = raw.read(4)
        compression = next((each for each, magic in _MAGICS.items() if start.startswith(magic)), None)
        return Layer(member=name, size=self._tar.getmember(name).size, compression=compression)

    def _open(self, name: str) -> IO[bytes]:
        file = self._tar.extractfile(name) if name in self._names else None
        if file is None:
            # Of what it pulled, containerd's store leaves out the layers that it had unpacked already from elsewhere.
            raise EngineError(
                "the engine hands out the image in part only", hint="build it here, or pull it into an empty engine"
            )
        return file

    def _bytes(self, name: str) -> bytes:
        with self._open(name) as file:
            return file.read()

    def _innermost(self, index: bytes) -> bytes:
        """Follow indexes to the one that lists the image's manifest."""
        found, _ = self._images(index)[0]
        inner = self._bytes(_blob(found))
        is_index = expect(ManifestBody, inner, _UNREADABLE).media_type in INDEX_TYPES
        return self._innermost(inner) if is_index else index

    def _images(self, index: bytes) -> list[tuple[Descriptor, Mapping[str, Any]]]:
        """The images that are here: of what it pulled, an engine leaves the other platforms out."""
        found = [pair for pair in self._entries(index) if not pair[0].is_attestation]
        if not found:
            raise _UNREADABLE
        return found

    def _entries(self, index: bytes) -> list[tuple[Descriptor, Mapping[str, Any]]]:
        """The entries of an index whose content is here, parsed and as they are."""
        parsed = expect(ManifestBody, index, _UNREADABLE).manifests
        pairs = zip(parsed, json.loads(index).get("manifests", ()), strict=True)
        return [pair for pair in pairs if _blob(pair[0]) in self._names]

    def _attestations(self, index: bytes, image: Descriptor) -> Iterator[Attestation]:
        for entry, table in self._entries(index):
            if entry.is_attestation and (entry.annotations or {}).get(SUBJECT) == image.digest:
                manifest = Manifest(content=self._bytes(_blob(entry)), media_type=entry.media_type)
                parts = [*manifest.body.layers, *([manifest.body.config] if manifest.body.config else [])]
                blobs = {part.digest: self._bytes(_blob(part)) for part in parts}
                yield Attestation(entry=table, manifest=manifest, blobs=blobs)


def _blob(descriptor: Descriptor) -> str:
    return "blobs/" + descriptor.digest.replace(":", "/")
