"""Published images as GitLab reads them: the jobs that others extend, and a dotenv file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from builder.errors import PublishError, UsageError, listed
from builder.matrix.model import Cell, Matrix
from builder.oci.reference import Digest, ImageRef
from builder.oci.registry import Registries


@dataclass(frozen=True, kw_only=True)
class JobImage:
    """A cell's image as jobs name it: the moving tag, and the digest that it named when asked."""

    cell: Cell
    tag: ImageRef
    digest: Digest

    @property
    def pinned(self) -> ImageRef:
        """The image by its digest alone, which nobody can move."""
        return self.tag.with_digest(self.digest).without_tag()

    @property
    def variable(self) -> str:
        """The name of the cell's variable in a dotenv file."""
        return "PREBUILT_" + re.sub("[^A-Z0-9]", "_", self.cell.name.upper())


def fetch_job_images(matrix: Matrix, repository: ImageRef, registries: Registries) -> tuple[JobImage, ...]:
    """Ask what the cells' moving tags name now; raise PublishError that names the cells without an image."""
    tags = {cell: repository.with_tag(matrix.moving_tags(cell)[0]) for cell in matrix.cells}
    found = dict(zip(tags, registries.map(registries.fetch_digest, tags.values()), strict=True))
    missing = [tags[cell].familiar for cell, digest in found.items() if digest is None]
    if missing:
        raise PublishError(
            f"not published: {listed(missing)}",
            hint="`builder build --push` publishes them; --only leaves cells out",
        )
    return tuple(JobImage(cell=cell, tag=tags[cell], digest=digest) for cell, digest in found.items() if digest)


def default_cell(matrix: Matrix) -> Cell:
    """The cell for jobs that ask for none: that of the alias `latest`, or the newest Python on the first base."""
    latest = dict(matrix.aliases).get("latest")
    first = matrix.cells[0].base
    return max(
        matrix.cells,
        key=lambda cell: (cell.name == latest, cell.base == first, [int(part) for part in cell.python.split(".")]),
    )


def jobs_yaml(images: Sequence[JobImage], default: str, *, pin: bool) -> str:
    """One hidden job for each cell, and `.prebuilt` for the default cell, for jobs to extend.

    A tag moves, so that a runner is to ask for it each time, and may run what it has where the registry does not
    answer; a digest need not be asked for again. Runners that allow only one of the two policies take that one.
    """
    repository = images[0].tag.familiar.rpartition(":")[0]
    lines = [
        f"# The images of {repository}, for jobs to extend.",
        "# Written by `builder ci images`; run that again rather than edit this.",
        "",
    ]
    for image in images:
        lines += [f".prebuilt-{image.cell.name}:", "  image:"]
        if pin:
            lines += [
                f"    # {image.tag.tag}",
                f"    name: {image.pinned}",
                "    pull_policy: [if-not-present, always]",
            ]
        else:
            lines += [f"    name: {image.tag}", "    pull_policy: [always, if-not-present]"]
        lines += [""]
    lines += [".prebuilt:", f"  extends: .prebuilt-{default}"]
    return "\n".join(lines) + "\n"


def dotenv(images: Sequence[JobImage], default: str, *, pin: bool) -> str:
    """`PREBUILT_<CELL>=<image>` for each cell, and `PREBUILT_DEFAULT`, for `artifacts: reports: dotenv`.

    Raises UsageError where two cells would have one variable.
    """
    names: dict[str, str] = {}
    for image in images:
        other = names.setdefault(image.variable, image.cell.name)
        if other != image.cell.name:
            raise UsageError(
                f"{other} and {image.cell.name} would both be {image.variable} in a dotenv file",
                hint="give one of the bases another name in the matrix",
            )
    lines = [f"{image.variable}={image.pinned if pin else image.tag}" for image in images]
    (chosen,) = [image for image in images if image.cell.name == default]
    return "\n".join([*lines, f"PREBUILT_DEFAULT={chosen.pinned if pin else chosen.tag}"]) + "\n"
