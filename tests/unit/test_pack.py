"""A layer is read once: packed, inspected and hashed on the way."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path
from typing import Any, Literal

import pytest
import zstandard

from builder.errors import BuildError
from builder.layer.artifact import Artifacts
from builder.layer.inspect import LayerInspector
from builder.layer.pack import pack
from builder.layer.plan import Layer
from builder.layer.store import LayerStore, StoredLayer
from builder.oci.reference import Digest
from tests.layers import digest, file, folder, tar_of

LAYER = Layer(kind="uv", key="5" * 64)
SECRET = b"hunter2-hunter2"
# Larger than a chunk, and of bytes that do not compress.
TAR = tar_of(folder("opt"), file("opt/a", os.urandom(3 << 20)), file("opt/b", b"text " * 1000))


class Stream(io.RawIOBase):
    """A source that can only be read, in pieces, once."""

    def __init__(self, content: bytes) -> None:
        self._source = io.BytesIO(content)
        self.largest = 0

    def readable(self) -> bool:
        """It can be read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Read so many bytes; all of them at once is not asked for."""
        assert size > 0
        self.largest = max(self.largest, size)
        return self._source.read(size)


def packed(folder: Path, source: Any, compression: Literal["gzip", "zstd"] = "gzip") -> tuple[LayerStore, StoredLayer]:
    """Pack a tar into a new store."""
    store = LayerStore(folder=folder)
    inspector = LayerInspector(
        cell="3.12-slim", marks={SECRET: "the password"}, artifacts=Artifacts(), raise_if_stopped=lambda: None
    )
    return store, pack(LAYER, source, store, compression, inspector)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_round_trip(tmp_path: Path, compression: Literal["gzip", "zstd"]) -> None:
    """Broken: a packed layer has other bytes than the tar, or a digest that engines refuse."""
    store, layer = packed(tmp_path, io.BytesIO(TAR), compression)
    blob = store.read(Digest.from_str(layer.digest))
    assert blob is not None
    plain = (
        gzip.decompress(blob)
        if compression == "gzip"
        else zstandard.ZstdDecompressor().decompressobj().decompress(blob)
    )
    assert plain == TAR
    assert (layer.digest, layer.diff_id) == (str(digest(blob)), str(digest(TAR)))
    assert (layer.size, layer.key) == (len(blob), LAYER.key)
    assert layer.media_type == f"application/vnd.oci.image.layer.v1.tar+{compression}"


def test_same_tar_gives_the_same_blob(tmp_path: Path) -> None:
    """Broken: two machines that make a layer of the same files store it twice."""
    layers = [packed(tmp_path / name, io.BytesIO(TAR))[1] for name in ("one", "two")]
    assert layers[0] == layers[1]


def test_tar_is_streamed(tmp_path: Path) -> None:
    """Broken: a layer of a gigabyte needs a gigabyte of memory, or is read twice."""
    source = Stream(TAR)
    _, layer = packed(tmp_path, source)
    assert layer.diff_id == str(digest(TAR))
    assert source.largest <= 1 << 20
    assert source.read(1) == b""


def test_padding_after_the_end_is_part_of_the_layer(tmp_path: Path) -> None:
    """Broken: the digest of a tar with blocks after its end is wrong, and engines refuse the layer."""
    padded = TAR + bytes(64 << 10)
    _, layer = packed(tmp_path, io.BytesIO(padded))
    assert layer.diff_id == str(digest(padded))


def test_faulty_layer_is_not_stored(tmp_path: Path) -> None:
    """Broken: a layer with a secret stays in the store, where the next run finds it."""
    with pytest.raises(BuildError, match="the password is in /opt/a"):
        packed(tmp_path, io.BytesIO(tar_of(file("opt/a", SECRET))))
    assert [path.name for path in tmp_path.glob("*/*")] == []
