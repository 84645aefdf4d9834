"""`size`: the compressed bytes that the warm cache adds to an image."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from bench.figures import judged, table
from bench.subject import Subject, replaced, subject
from builder.contract import CACHE, LABELS
from builder.oci.archive import ArchiveLayer, ImageArchive

GOAL: Final = 1.03  # times the size of the environment alone

_GZIP_WBITS: Final = 31  # zlib's code for a gzip stream
_COMPRESSED: Final = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")  # gzip, zstd
_LAST_LINE: Final = "EOF\n\nENV UV_PROJECT_ENVIRONMENT="  # the end of the step that installs


@dataclass(frozen=True, kw_only=True)
class Bytes:
    """Compressed sizes of an image: of all layers above the base, and of the layer with environment and cache."""

    above_base: int
    environment: int


def alone(dockerfile: str) -> str:
    """The same image without a cache: the step that fills it removes it again, so that it is in no layer."""
    return replaced(dockerfile, _LAST_LINE, f"rm -rf {CACHE}\n{_LAST_LINE}")


def copied(dockerfile: str) -> str:
    """The same image with a cache that shares nothing with the environment."""
    return replaced(dockerfile, "UV_LINK_MODE=hardlink", "UV_LINK_MODE=copy")


_VARIANTS: Final[tuple[tuple[str, Callable[[str], str]], ...]] = (
    ("environment alone", alone),
    ("environment + warm cache, as builder bakes it (hard links)", str),
    ("environment + warm cache, copy mode", copied),
)


def main(scratch: Path) -> str:
    """Build the three images and return the report."""
    made = subject(scratch)
    sizes = {name: _measure(made, name, alter, scratch) for name, alter in _VARIANTS}
    first, baked, _ = sizes.values()
    ratio = baked.environment / first.environment
    rows = [
        (
            name,
            f"{each.environment:,}",
            f"{each.environment / first.environment:.3f}",
            f"{each.above_base:,}",
            f"{each.above_base / first.above_base:.3f}",
        )
        for name, each in sizes.items()
    ]
    return (
        f"size: compressed bytes of the layers above {made.rendered.plan.base.familiar.partition('@')[0]}, "
        f"{len(made.rendered.plan.selection.packages)} packages\n"
        + table(("", "its own layer", "ratio", "all above the base", "ratio"), rows)
        + f"\n  target: at most {GOAL} of the environment alone, in its own layer: {ratio:.3f}, {judged(ratio <= GOAL)}"
    )


def _measure(made: Subject, name: str, alter: Callable[[str], str], scratch: Path) -> Bytes:
    saved = scratch / "image.tar"
    with made.image(name, alter) as image:
        made.engine.save(image, saved)
    try:
        with ImageArchive(saved) as archive:
            _, layers = archive.split(f"LABEL {LABELS}.")
        sizes = [_compressed(saved, layer) for layer in layers]
    finally:
        saved.unlink()
    # The last layer: only ENV instructions follow the step that installs, and they create no layer.
    return Bytes(above_base=sum(sizes), environment=sizes[-1])


def _compressed(saved: Path, layer: ArchiveLayer) -> int:
    """The layer's compressed size: as stored, or compressed here with gzip if the engine stores layers uncompressed."""
    with tarfile.open(saved) as tar:
        content = tar.extractfile(layer.member)
        assert content is not None
        magic = content.read(4)
        content.seek(0)
        return layer.size if magic.startswith(_COMPRESSED) else _gzipped(content)


def _gzipped(content: IO[bytes]) -> int:
    compressor = zlib.compressobj(wbits=_GZIP_WBITS)
    size = sum(len(compressor.compress(chunk)) for chunk in iter(lambda: content.read(1 << 20), b""))
    return size + len(compressor.flush())
