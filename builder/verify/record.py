"""Records of the images that were verified on this machine, so that they need no second build or verification.

A record is a small JSON file in the user's cache folder, named by the key and by the image id, which the engine
derives from the image's content.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from builder.engine.protocol import Engine
from builder.errors import EngineError
from builder.image.render import RenderedImage
from builder.oci.reference import Digest
from builder.parse import Document, MalformedError, parse_document, read_bytes
from builder.verify.checks import CHECKS
from builder.verify.inside import Check
from builder.verify.runner import VerifiedImage
from builder.whole_file import write_whole


class _Record(Document):
    """The checks that an image passed."""

    checks: tuple[Check, ...]


@dataclass(frozen=True, kw_only=True)
class EngineImage:
    """An image in the engine that an earlier run on this machine verified. Only `find_verified` constructs it."""

    rendered: RenderedImage
    digest: Digest
    checks: tuple[Check, ...]


def record_verified(verified: VerifiedImage, engine: Engine, folder: Path) -> None:
    """Record that the cell's image in the engine was verified; ignore errors, which only make the next run slower."""
    image = Digest.from_str(engine.find_image_id(str(verified.rendered.immutable_tag)))
    record = _Record(checks=verified.checks)
    with contextlib.suppress(OSError):
        write_whole(_path(verified.rendered, image, folder), record.model_dump_json())


def find_verified(rendered: RenderedImage, engine: Engine, folder: Path) -> EngineImage | None:
    """Ask the engine for the cell's image; None if it is missing, or has no record of passing all current checks."""
    try:
        image = Digest.from_str(engine.find_image_id(str(rendered.immutable_tag)))
        record = parse_document(_Record, read_bytes(_path(rendered, image, folder)))
    except (OSError, MalformedError, EngineError):
        return None
    names = {check.name for check in record.checks if check.verdict != "failed"}
    return EngineImage(rendered=rendered, digest=image, checks=record.checks) if names == set(CHECKS) else None


def _path(rendered: RenderedImage, image: Digest, folder: Path) -> Path:
    """One file for each image: two repositories have different images of one key."""
    return folder / rendered.key / f"{image.hex}.json"
