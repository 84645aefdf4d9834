"""Packs a layer: reads a tar once, and on the way compresses it, computes its digests and inspects every file in it."""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from pathlib import Path
from typing import IO, Final, Protocol

import zstandard
from isal import isal_zlib

from builder.contract import LAYER_TYPE
from builder.layer.inspect import LayerInspector
from builder.layer.plan import Compression, Layer
from builder.layer.store import LayerStore, StoredLayer
from builder.oci.reference import Digest

_CHUNK: Final = 1 << 20
_BUFFER: Final = 1 << 16  # tarfile copies what is left of it for each header
_GZIP_LEVEL: Final = 1  # a fifth of the processor time of zlib's level 6, for 14 % more bytes
_ZSTD_LEVEL: Final = 3


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _Tap:
    """A tar that is read: every byte that passes is hashed and compressed into the blob."""

    def __init__(self, source: IO[bytes], blob: IO[bytes], compressor: _Compressor) -> None:
        self._source = source
        self._blob = blob
        self._compressor = compressor
        self._plain = hashlib.sha256()
        self._packed = hashlib.sha256()
        self.size = 0

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes."""
        data = self._source.read(size)
        self._plain.update(data)
        self._put(self._compressor.compress(data))
        return data

    def finish(self) -> tuple[Digest, Digest]:
        """Read the rest; return the digests of the plain tar and of the blob."""
        while self.read(_CHUNK):
            pass
        self._put(self._compressor.flush())
        self._blob.flush()
        plain, packed = self._plain.hexdigest(), self._packed.hexdigest()
        return Digest(algorithm="sha256", hex=plain), Digest(algorithm="sha256", hex=packed)

    def _put(self, data: bytes) -> None:
        self._packed.update(data)
        self._blob.write(data)
        self.size += len(data)


def pack(
    layer: Layer,
    source: IO[bytes],
    store: LayerStore,
    compression: Compression,
    inspector: LayerInspector,
) -> StoredLayer:
    """Store the blob of a layer, from its plain tar; raise BuildError if a file in it is not as it should be."""
    with store.new_blob() as blob:
        tap = _Tap(source, blob, _compressor(compression))
        with tarfile.open(fileobj=tap, mode="r|", bufsize=_BUFFER) as tar:  # type: ignore[call-overload]  # reads only
            trees = inspector.inspect(layer, tar)
        plain, packed = tap.finish()
        store.keep(Path(blob.name), packed)
    return StoredLayer(
        key=layer.key,
        digest=str(packed),
        size=tap.size,
        media_type=f"{LAYER_TYPE}+{compression}",
        diff_id=str(plain),
        trees=trees,
    )


def _compressor(compression: Compression) -> _Compressor:
    if compression == "zstd":
        made: _Compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
        return made
    gzip: _Compressor = isal_zlib.compressobj(level=_GZIP_LEVEL, wbits=16 + zlib.MAX_WBITS)
    return gzip
