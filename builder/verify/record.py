"""Which images were verified on this machine, by key, so that an unchanged image is neither built nor verified again.

A record is a small JSON file in the user's cache folder. It vouches for one image id, which the engine derives from the
image's content.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from builder.engine.protocol import Engine
from builder.errors import EngineError
from builder.image.render import RenderedImage
from builder.oci.manifest import DigestText
from builder.oci.reference import Digest
from builder.parse import Document, MalformedError, document
from builder.verify.checks import CHECKS
from builder.verify.runner import VerifiedImage


class _Record(Document):
    """What is noted of a key: the image's id in the engine, and the names of the checks that it passed."""

    image: DigestText
    checks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EngineImage:
    """An image in the engine that an earlier run on this machine verified. `find_verified` alone makes one."""

    rendered: RenderedImage
    digest: Digest


def note_verified(verified: VerifiedImage, engine: Engine, folder: Path) -> None:
    """Note that the cell's image in the engine was verified; if that fails, only the next run is slower."""
    tag = str(verified.rendered.immutable_tag)
    record = _Record(image=engine.find_image_id(tag), checks=tuple(check.name for check in verified.checks))
    path = _path(verified.rendered, folder)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(record.model_dump_json(), encoding="utf-8")
        fresh.replace(path)
    except OSError:
        return


def find_verified(rendered: RenderedImage, engine: Engine, folder: Path) -> EngineImage | None:
    """Ask the engine for the cell's image; None where it is missing, or has not passed all of today's checks."""
    try:
        record = document(_Record, _path(rendered, folder).read_bytes())
        image = engine.find_image_id(str(rendered.immutable_tag))
    except (OSError, MalformedError, EngineError):
        return None
    if record.image != image or set(record.checks) != set(CHECKS):
        return None
    return EngineImage(rendered=rendered, digest=Digest.from_str(image))


def _path(rendered: RenderedImage, folder: Path) -> Path:
    return folder / f"{rendered.key}.json"
