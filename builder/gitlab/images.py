"""Published images in a form that GitLab reads: jobs to extend, and a dotenv file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from builder.errors import PublishError, UsageError, listed
from builder.matrix.model import Cell, Matrix
from builder.oci.reference import Digest, ImageRef
from builder.oci.registry import Registries

# GitLab's limits on a dotenv report (Instance limits, "Limit dotenv variables" and "Limit dotenv file size").
_DOTENV_VARIABLES: Final = 20  # by default; GitLab.com and administrators allow more
_DOTENV_BYTES: Final = 5 * 1024


@dataclass(frozen=True, kw_only=True)
class JobImage:
    """A cell's published image: the moving tag, and the digest it names now."""

    cell: Cell
    tag: ImageRef
    digest: Digest

    @property
    def pinned(self) -> ImageRef:
        """The image by digest only, which cannot be moved."""
        return self.tag.with_digest(self.digest).without_tag()

    @property
    def variable(self) -> str:
        """The name of the cell's variable in the dotenv file."""
        return "PREBUILT_" + re.sub("[^A-Z0-9]", "_", self.cell.name.upper())


def fetch_job_images(matrix: Matrix, repository: ImageRef, registries: Registries) -> tuple[JobImage, ...]:
    """Ask the registry which images the cells' moving tags name; raise a PublishError that lists the missing ones."""
    tags = {cell: repository.with_tag(matrix.moving_tags(cell)[0]) for cell in matrix.cells}
    digests = dict(zip(tags, registries.map(registries.fetch_digest, tags.values()), strict=True))
    missing = [tags[cell].familiar for cell, digest in digests.items() if digest is None]
    if missing:
        raise PublishError(
            f"not published: {listed(missing)}",
            hint="`builder build --push` publishes them; --only leaves cells out",
        )
    return tuple(JobImage(cell=cell, tag=tags[cell], digest=digest) for cell, digest in digests.items() if digest)


def default_cell(matrix: Matrix) -> Cell:
    """The cell for jobs that do not choose one: the alias `latest`, or else the newest CPython on the first base."""
    latest = dict(matrix.aliases).get("latest")
    first = matrix.cells[0].base
    return max(
        matrix.cells,
        key=lambda cell: (
            cell.name == latest,
            cell.base == first,
            cell.interpreter.is_usual,
            cell.interpreter.release,
        ),
    )


def jobs_yaml(images: Sequence[JobImage], default: str, *, pin: bool) -> str:
    """A hidden job for each cell, and `.prebuilt` for the default cell, for jobs to extend.

    Tags move, so runners should pull each time, but may use their local image if the registry does not answer. Digests
    do not move, so the local image is good. Runners that allow only one of the two policies use that one.
    """
    repository = images[0].tag.familiar.rpartition(":")[0]
    lines = [
        f"# Images of {repository}, for jobs to extend.",
        "# Written by `builder ci images`; do not edit, run it again instead.",
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

    Raises UsageError if two cells would share a variable, or if the file is larger than GitLab takes.
    """
    names: dict[str, str] = {}
    for image in images:
        other = names.setdefault(image.variable, image.cell.name)
        if other != image.cell.name:
            raise UsageError(
                f"{other} and {image.cell.name} would share the variable {image.variable} in the dotenv file",
                hint="rename one of the bases in the matrix",
            )
    lines = [f"{image.variable}={image.pinned if pin else image.tag}" for image in images]
    (default_image,) = [image for image in images if image.cell.name == default]
    text = "\n".join([*lines, f"PREBUILT_DEFAULT={default_image.pinned if pin else default_image.tag}"]) + "\n"
    if len(text.encode()) > _DOTENV_BYTES:
        raise UsageError(
            f"the dotenv file has {len(text.encode())} bytes, and GitLab takes at most {_DOTENV_BYTES}",
            hint="choose fewer cells with --only, or extend the hidden jobs instead, which have no limit",
        )
    return text


def dotenv_warning(text: str) -> str:
    """What to tell whoever hands so many variables to GitLab; '' if they are few enough for any."""
    number = len(text.splitlines())
    if number <= _DOTENV_VARIABLES:
        return ""
    return (
        f"{number} variables, and GitLab takes {_DOTENV_VARIABLES} from a job unless its limit is raised; "
        "--only writes fewer, and the YAML needs none"
    )
