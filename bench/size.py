"""`size`: the compressed bytes that the warm cache adds to an image."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.figures import judged, table
from bench.subject import Subject, replaced, subject
from builder.contract import CACHE, LABELS
from builder.oci.archive import ArchiveLayer, ImageArchive

GOAL: Final = 1.03  # times the size of the environment alone

_GZIP_WBITS: Final = 31  # zlib's code for a gzip stream
_LAST_LINES: Final = "EOF\n\nCOPY --link --chmod=755 prebuilt-status"  # the end of the step that installs
_OTHERS: Final = ("COPY ", "builder: uv", "builder: stdlib", "builder: notes")


@dataclass(frozen=True, kw_only=True)
class Bytes:
    """Compressed sizes of an image: of all layers above the base, and of those with environment and cache."""

    above_base: int
    environment: int


def alone(dockerfile: str) -> str:
    """The same image without a cache: the step that fills it removes it again, so that it is in no layer."""
    return replaced(dockerfile, _LAST_LINES, f"rm -rf {CACHE}\n{_LAST_LINES}")


def copied(dockerfile: str) -> str:
    """The same image with a cache that shares nothing with the environment."""
    return replaced(dockerfile, "UV_LINK_MODE=hardlink", "UV_LINK_MODE=copy")


_VARIANTS: Final[tuple[tuple[str, Callable[[str], str]], ...]] = (
    ("environment alone", alone),
    ("environment + warm cache, one step (hard links)", str),
    ("environment + warm cache, copy mode", copied),
)
_LAYERED: Final = "environment + warm cache, as builder bakes it (layers)"


def main(scratch: Path) -> str:
    """Build the images and return the report."""
    made = subject(scratch)
    sizes = {name: _measure(made, made.image(name, alter), scratch) for name, alter in _VARIANTS}
    sizes[_LAYERED] = _measure(made, made.layered(), scratch)
    first = sizes[_VARIANTS[0][0]]
    ratio = sizes[_LAYERED].environment / first.environment
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
        f"size: bytes of the layers above {made.rendered.plan.base.familiar.partition('@')[0]}, "
        f"{len(made.rendered.plan.selection.packages)} packages, each layer compressed by zlib's level 6\n"
        + table(("", "environment and cache", "ratio", "all above the base", "ratio"), rows)
        + f"\n  target: layers at most {GOAL} of the environment alone: {ratio:.3f}, {judged(ratio <= GOAL)}"
    )


def _measure(made: Subject, built: AbstractContextManager[str], scratch: Path) -> Bytes:
    saved = scratch / "image.tar"
    with built as image:
        made.engine.save(image, saved)
    try:
        with ImageArchive(saved) as archive:
            _, layers = archive.split(f"LABEL {LABELS}.")
            titles = [entry.created_by for entry in archive.history if not entry.empty_layer][-len(layers) :]
            sizes = [_gzipped(archive, layer) for layer in layers]
    finally:
        saved.unlink()
    own = [size for size, title in zip(sizes, titles, strict=True) if not _is_other(title)]
    return Bytes(above_base=sum(sizes), environment=sum(own))


def _is_other(title: str) -> bool:
    """Whether a layer has neither environment nor cache, by what the history says that created it."""
    return title.startswith(_OTHERS) or "compileall" in title


def _gzipped(archive: ImageArchive, layer: ArchiveLayer) -> int:
    """The size of a layer, compressed the same way whoever made it."""
    compressor = zlib.compressobj(wbits=_GZIP_WBITS)
    with archive.open_plain(layer) as content:
        size = sum(len(compressor.compress(chunk)) for chunk in iter(lambda: content.read(1 << 20), b""))
    return size + len(compressor.flush())
