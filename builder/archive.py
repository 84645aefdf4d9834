"""A saved image (`docker save`): its manifest, config, layers and attestations, read from the tar without unpacking it.

Layouts: the OCI image layout, and where an engine writes none, Docker's own `manifest.json`.
"""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Literal

import zstandard

from builder.attestation import SUBJECT, Attestation
from builder.errors import EngineError
from builder.registry import Manifest, is_attestation

_MAGICS: Final[Mapping[Literal["gzip", "zstd"], bytes]] = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}
_INDEX_TYPES: Final = {
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
}


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
        if "index.json" in self._names:
            index = self._innermost(self._json("index.json"))
            self.entry = self._images(index)[0]
            self.attestations = tuple(self._attestations(index))
            manifest = self._json(self._blob(self.entry["digest"]))
            config = self._blob(manifest["config"]["digest"])
            layers = [self._blob(layer["digest"]) for layer in manifest["layers"]]
        else:
            (entry,) = self._json("manifest.json")
            config, layers = entry["Config"], entry["Layers"]
        self.config_bytes = self._bytes(config)
        self.config: Mapping[str, Any] = json.loads(self.config_bytes)
        self.layers = tuple(self._layer(name) for name in layers)

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
    def history(self) -> list[Mapping[str, Any]]:
        """The config's history, oldest first; an entry without `empty_layer` made the next layer."""
        return list(self.config.get("history", []))

    def split(self, marker: str) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
        """The layers made before, and those made after, the history entry whose `created_by` has the marker.

        Where none has, or the history does not fit the layers, all count as made after.
        """
        made = [entry for entry in self.history if not entry.get("empty_layer")]
        below = 0
        for entry in self.history if len(made) == len(self.layers) else ():
            if marker in entry.get("created_by", ""):
                return self.layers[:below], self.layers[below:]
            below += not entry.get("empty_layer")
        return (), self.layers

    def files(self, layer: Layer) -> Iterator[tuple[str, bytes]]:
        """Yield the name and content of each regular file of a layer, in the layer's order."""
        with self.plain(layer) as plain, tarfile.open(fileobj=plain, mode="r|") as layer_tar:
            for entry in layer_tar:
                content = layer_tar.extractfile(entry) if entry.isreg() else None
                if content is not None:
                    yield entry.name, content.read()

    def raw(self, layer: Layer) -> IO[bytes]:
        """Open a layer as it lies in the archive."""
        return self._open(layer.member)

    def plain(self, layer: Layer) -> IO[bytes]:
        """Open a layer's tar, unpacked."""
        raw = self._open(layer.member)
        if layer.compression == "gzip":
            return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
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

    def _json(self, name: str) -> Any:
        return json.loads(self._bytes(name))

    def _innermost(self, index: Mapping[str, Any]) -> Mapping[str, Any]:
        """Follow indexes to the one that names the image's manifest."""
        inner: Mapping[str, Any] = self._json(self._blob(self._images(index)[0]["digest"]))
        return self._innermost(inner) if inner.get("mediaType") in _INDEX_TYPES else index

    def _images(self, index: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The entries that are here and no attestations: an engine keeps what it pulled of other platforms out."""
        return [entry for entry in index["manifests"] if self._has(entry) and not is_attestation(entry)]

    def _attestations(self, index: Mapping[str, Any]) -> Iterator[Attestation]:
        for entry in index["manifests"]:
            if is_attestation(entry) and self._has(entry) and entry["annotations"].get(SUBJECT) == self.entry["digest"]:
                content = self._bytes(self._blob(entry["digest"]))
                manifest = Manifest(content=content, media_type=entry["mediaType"])
                digests = [each["digest"] for each in (*manifest.table["layers"], manifest.table["config"])]
                blobs = {digest: self._bytes(self._blob(digest)) for digest in digests}
                yield Attestation(entry=entry, manifest=manifest, blobs=blobs)

    def _has(self, entry: Mapping[str, Any]) -> bool:
        return self._blob(entry["digest"]) in self._names

    @staticmethod
    def _blob(digest: str) -> str:
        return "blobs/" + digest.replace(":", "/")
