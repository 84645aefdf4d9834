"""The compressions of layers (layer.md of the OCI image specification): told apart, and undone."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Mapping
from typing import IO, Final, Literal

import zstandard
from isal import igzip, isal_zlib

Compressed = Literal["gzip", "zstd"]
_MAGICS: Final[Mapping[Compressed, bytes]] = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}

# What the libraries raise for a damaged blob, or for a damaged tar in it.
DAMAGED: Final[tuple[type[Exception], ...]] = (
    tarfile.TarError,
    igzip.BadGzipFile,
    isal_zlib.IsalError,  # type: ignore[assignment]  # isal's stubs declare an instance
    zlib.error,
    zstandard.ZstdError,
    EOFError,
)


def compression_of(start: bytes) -> Compressed | None:
    """The compression of a blob that begins with these bytes, at least four; None if it is a plain tar."""
    return next((name for name, magic in _MAGICS.items() if start.startswith(magic)), None)


def unpacked(raw: IO[bytes], compression: Compressed | None) -> IO[bytes]:
    """Open a blob's content without its compression."""
    if compression == "gzip":
        return igzip.IGzipFile(fileobj=raw)  # type: ignore[no-untyped-call,return-value]
    if compression == "zstd":
        return zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
    return raw
