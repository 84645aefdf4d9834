"""The layer with uv: the binaries of the uv image, at the path that the Dockerfile copies them to."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import IO, Final

from builder.errors import RegistryError
from builder.layer.base import BaseImage
from builder.layer.blobs import Blobs
from builder.oci.reference import Digest

_NAMES: Final = ("uv", "uvx")
_LATEST: Final = 1 << 33  # seconds since 1970, in octal digits of a tar


def write_uv(image: BaseImage, blobs: Blobs, path: Path) -> None:
    """Write the tar of the layer; raise RegistryError if the image has no /uv and /uvx."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as out:
        written: set[str] = set()
        for layer in reversed(image.layers):
            with blobs.open_plain(Digest.from_str(layer.digest)) as plain:
                written |= _copy(plain, out, written)
        if written != set(_NAMES):
            raise RegistryError(f"{image.ref.familiar} has no /uv and /uvx", hint="correct uv-image in the matrix")


def _time(entry: tarfile.TarInfo) -> int:
    """The entry's time in whole seconds; 0 if it has none that makes sense."""
    return int(entry.mtime) if 0 <= entry.mtime < _LATEST else 0


def _copy(plain: IO[bytes], out: tarfile.TarFile, written: set[str]) -> set[str]:
    copied = set()
    with tarfile.open(fileobj=plain, mode="r|") as tar:
        for entry in tar:
            name = entry.name.removeprefix("./").removeprefix("/")
            if name in _NAMES and name not in written and entry.isreg():
                copy = tarfile.TarInfo(f"usr/local/bin/{name}")
                copy.size, copy.mtime, copy.mode = entry.size, _time(entry), 0o755
                out.addfile(copy, tar.extractfile(entry))
                copied.add(name)
    return copied
