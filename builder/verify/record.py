"""Records of the images that were verified on this machine, so that they need no second build or verification.

A record is a small JSON file in the user's cache folder, named by key. It is valid for one image id, which the engine
derives from the image's content.
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
from builder.parse import Document, MalformedError, parse_document
from builder.verify.checks import CHECKS
from builder.verify.runner import VerifiedImage


class _Record(Document):
    """A record: the image's id in the engine, and the names of the checks that it passed."""

    image: DigestText
    checks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EngineImage:
    """An image in the engine that an earlier run on this machine verified. Only `find_verified` constructs it."""

    rendered: RenderedImage
    digest: Digest


def record_verified(verified: VerifiedImage, engine: Engine, folder: Path) -> None:
    """Record that the cell's image in the engine was verified; ignore errors, which only make the next run slower."""
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
    """Ask the engine for the cell's image; None if it is missing, or has no record of passing all current checks."""
    try:
        record = parse_document(_Record, _path(rendered, folder).read_bytes())
        image = engine.find_image_id(str(rendered.immutable_tag))
    except (OSError, MalformedError, EngineError):
        return None
    if record.image != image or set(record.checks) != set(CHECKS):
        return None
    return EngineImage(rendered=rendered, digest=Digest.from_str(image))


def _path(rendered: RenderedImage, folder: Path) -> Path:
    return folder / f"{rendered.key}.json"
