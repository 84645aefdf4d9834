"""Change the files of a pipeline whose jobs install their dependencies so that the jobs run on baked images.

Each rule proposes slots to remove, and `removal` adds what depends on them. What would break something else is left
alone, with a remark. The order matters: images come first, because the other rules apply only to jobs on baked images;
variables come last, because they can go only when nothing uses them any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from builder.gitlab.adopt.bake import replace_images
from builder.gitlab.adopt.draft import Draft, Images
from builder.gitlab.adopt.file import EditedFile, Edits
from builder.gitlab.adopt.inheritance import read_jobs
from builder.gitlab.adopt.leftover import remark_on_leftovers
from builder.gitlab.adopt.manager import use_uv
from builder.gitlab.adopt.pipeline import Pipeline
from builder.gitlab.adopt.remark import Remark, in_order
from builder.gitlab.adopt.store import drop_stores
from builder.gitlab.adopt.variable import drop_variables
from builder.gitlab.adopt.venv import conflicting_jobs, drop_environments, drop_lines
from builder.matrix.model import Matrix

REPOSITORY: Final = "$CI_REGISTRY_IMAGE/ci"  # GitLab expands the variable in image:


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """The files of a pipeline with their new texts, and remarks, the most important first."""

    files: tuple[EditedFile, ...]
    remarks: tuple[Remark, ...]


def adopt(pipeline: Pipeline, matrix: Matrix) -> Adoption:
    """Rewrite the files of a pipeline so that the jobs that use Python run on the images of a matrix."""
    jobs = read_jobs(pipeline)
    images = Images(matrix=matrix, repository=matrix.repository or REPOSITORY)
    refused: frozenset[str] = frozenset()
    while True:  # which jobs conflict with an environment that stays is known only once the images are chosen
        draft = Draft(pipeline, jobs, images, refused)
        replace_images(draft)
        drop_environments(draft)
        conflicting = conflicting_jobs(draft)
        if conflicting <= refused:
            break
        refused |= conflicting
    use_uv(draft)
    drop_lines(draft)
    drop_stores(draft)
    drop_variables(draft)
    remark_on_leftovers(draft)
    edits = Edits(removed=draft.removal.slots, replaced=draft.replaced)
    files = tuple(file.edit(edits.within(file)) for file in pipeline.files)
    return Adoption(files=files, remarks=tuple(in_order(draft.remarks)))
