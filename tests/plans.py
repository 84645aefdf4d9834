"""Plans of images, made from a matrix text and a lock in a folder, with given digests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from builder.image.plan import ImagePlan, input_images, plan_image
from builder.lock.select import select
from builder.lock.uv_python import choose_pythons
from builder.matrix.file import parse_matrix
from builder.matrix.model import Platform
from builder.oci.reference import Digest, ImageRef
from tests import locks

REPOSITORY = ImageRef.from_str("registry.example.com/acme/ci")


def plans_of(
    folder: Path,
    matrix: str,
    *packages: Mapping[str, Any],
    base_digest: Digest,
    uv_digest: Digest,
    repository: ImageRef = REPOSITORY,
    platform: str = "linux/amd64",
    listings: Mapping[str, str] | None = None,
) -> Iterator[ImagePlan]:
    """Yield the plan of each cell of the matrix, in its order; `listings` are those of `choose_pythons`."""
    parsed = parse_matrix(matrix, source="matrix.toml", folder=folder).on(Platform.from_str(platform))
    parsed = choose_pythons(parsed, listings or {})
    digests = {ref: uv_digest if ref == parsed.uv else base_digest for ref in input_images(parsed)}
    for cell in parsed.cells:
        install = parsed.install_of(cell.profile)
        lock = locks.read(folder, *packages, install=install, dependency_groups=["dev"])
        yield plan_image(parsed, select(lock, cell), digests, repository=repository, today=date(2026, 11, 20))


def plan_of(folder: Path, matrix: str, *packages: Mapping[str, Any], **arguments: Any) -> ImagePlan:
    """The plan of the matrix's first cell; the arguments are those of `plans_of`."""
    return next(plans_of(folder, matrix, *packages, **arguments))
