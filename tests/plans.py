"""Plans of images, made from a matrix text and a lock in a folder, with digests given instead of asked for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from builder.image.plan import ImagePlan, inputs, plan
from builder.lock.select import select
from builder.matrix.file import parse_matrix
from builder.matrix.model import Platform
from builder.oci.reference import Digest, ImageRef
from tests import locks

REPOSITORY = ImageRef.from_str("registry.example.com/acme/ci")


def plan_of(
    folder: Path,
    matrix: str,
    *packages: Mapping[str, Any],
    base_digest: Digest,
    uv_digest: Digest,
    repository: ImageRef = REPOSITORY,
    platform: str = "linux/amd64",
) -> ImagePlan:
    """The plan of the matrix's first cell."""
    parsed = parse_matrix(matrix, source="matrix.toml").on(Platform.from_str(platform))
    lock = locks.read(folder, *packages, install=parsed.install, dependency_groups=["dev"])
    digests = {ref: uv_digest if ref == parsed.uv else base_digest for ref in inputs(parsed)}
    return plan(parsed, select(lock, parsed.cells[0]), digests, repository=repository, today=date(2026, 11, 20))
