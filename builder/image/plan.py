"""Combines a cell, its selection and resolved digests into an `ImagePlan`, which decides everything in an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from builder.contract import (
    CA_BUNDLE,
    CA_VARIABLES,
    CELL_LABEL,
    LABELS,
    PATH_FIRST,
    PROGRAMS,
    PYTHON_LABEL,
    TOOL_VARIABLES,
    TOOLS_LABEL,
    VARIABLES,
)
from builder.lock.model import Selection
from builder.matrix.model import Cell, Matrix
from builder.oci.reference import Digest, ImageRef


@dataclass(frozen=True, kw_only=True)
class ImagePlan:
    """One image: its cell, its selection, the pinned images that it is built from, and its moving tags.

    `repository` has neither tag nor digest; `base` and `uv` have both. `branch` is the slug of the branch that the
    moving tags belong to, empty for the project's own. `refresh_period` names the day, week or month for which the
    system packages are installed (2026-11-20, 2026-W47 or 2026-11); it is empty if they are never refreshed, or if
    there are none. `ca` are certificates in PEM that the image trusts besides those of its base.
    """

    cell: Cell
    selection: Selection
    base: ImageRef
    uv: ImageRef
    repository: ImageRef
    link_mode: str
    moving_tags: tuple[str, ...]
    branch: str
    refresh_period: str
    ca: bytes = b""

    @property
    def toolchain(self) -> tuple[str, ...]:
        """The system packages that are there while packages are built from source; none if no package is."""
        is_built = any(not package.is_wheel for package in self.selection.downloads)
        return self.cell.build_packages if is_built else ()

    @property
    def uses_ssh(self) -> bool:
        """Whether a package comes from git over SSH."""
        groups = (self.selection.packages, *self.selection.cached)
        return any(package.is_over_ssh for group in groups for package in group)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that the image sets, except PATH."""
        trust = dict.fromkeys(CA_VARIABLES, CA_BUNDLE) if self.ca else {}
        tools = TOOL_VARIABLES if self.selection.tools else {}
        python = {"PYTHON_VERSION": self.cell.uv_python.version} if self.cell.uv_python else {}  # as official images
        return {**VARIABLES, "UV_LINK_MODE": self.link_mode, **trust, **tools, **python}

    @property
    def path(self) -> str:
        """What PATH has in front of the base's: the environment comes before the tools, so that a locked one wins."""
        return ":".join([*PATH_FIRST, *([PROGRAMS] if self.selection.tools else [])])

    @property
    def labels(self) -> dict[str, str]:
        """The labels that the Dockerfile sets."""
        return {
            CELL_LABEL: self.cell.name,
            f"{LABELS}.platform": str(self.cell.platform),
            f"{LABELS}.uv": str(self.uv.tag),
            **({PYTHON_LABEL: self.cell.uv_python.name} if self.cell.uv_python else {}),
            "org.opencontainers.image.base.name": str(self.base.with_tag(str(self.base.tag))),
            "org.opencontainers.image.base.digest": str(self.base.digest),
            **({TOOLS_LABEL: " ".join(tool.pin for tool in self.selection.tools)} if self.selection.tools else {}),
        }


def plan_image(
    matrix: Matrix, selection: Selection, digests: Mapping[ImageRef, Digest], *, repository: ImageRef, today: date
) -> ImagePlan:
    """Plan the image of the selection's cell; `digests` must contain those of its base and of uv."""
    cell = selection.cell
    return ImagePlan(
        cell=cell,
        selection=selection,
        base=cell.image.with_digest(digests[cell.image]),
        uv=matrix.uv.with_digest(digests[matrix.uv]),
        repository=repository,
        link_mode=matrix.link_mode,
        refresh_period=_refresh_period(matrix.refresh, today) if cell.packages else "",
        moving_tags=matrix.moving_tags(cell),
        branch=matrix.branch,
        ca=matrix.ca,
    )


def _refresh_period(refresh: str, today: date) -> str:
    """Name the period that contains the day. The name is part of the key, so that each period gets a new image."""
    year, week, _ = today.isocalendar()
    return {
        "never": "",
        "daily": today.isoformat(),
        "weekly": f"{year}-W{week:02}",
        "monthly": f"{today:%Y-%m}",
    }[refresh]


def input_images(matrix: Matrix) -> tuple[ImageRef, ...]:
    """The images whose digests the plans of a matrix need: each base once, and uv."""
    return tuple(dict.fromkeys([*(cell.image for cell in matrix.cells), matrix.uv]))
