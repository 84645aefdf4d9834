"""Change the files of a pipeline whose jobs install their dependencies so that the jobs run on baked images.

Each rule proposes slots to remove, and `removal` adds what depends on them. What would break something else is left
alone, with a remark. The order matters: images come first, because the other rules apply only to jobs on baked images;
variables come last, because they can go only when nothing uses them any more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from builder.gitlab.adopt.bake import replace_images
from builder.gitlab.adopt.draft import Draft, Images
from builder.gitlab.adopt.file import EditedFile, Edits
from builder.gitlab.adopt.inclusion import include_component
from builder.gitlab.adopt.inheritance import read_jobs
from builder.gitlab.adopt.job import Job
from builder.gitlab.adopt.leftover import remark_on_leftovers
from builder.gitlab.adopt.lock import ProjectLock, find_project_lock
from builder.gitlab.adopt.manager import use_uv
from builder.gitlab.adopt.pipeline import Pipeline
from builder.gitlab.adopt.proposal import leaves_python_open, project_python, propose_matrix, works_on_project
from builder.gitlab.adopt.remark import Remark, in_order
from builder.gitlab.adopt.store import drop_stores
from builder.gitlab.adopt.variable import drop_variables
from builder.gitlab.adopt.venv import conflicting_jobs, drop_environments, drop_lines
from builder.gitlab.component import COPY, component_text
from builder.matrix.file import built_in_matrix, parse_matrix
from builder.matrix.model import Matrix

_LOCK_INPUT: Final = re.compile(r"^\s+lock:\s*[\"']?([^\s\"'#]+)", re.MULTILINE)
MATRIX_NAME: Final = "matrix.toml"
PREBUILT: Final = "$PREBUILT"  # the suffix of the tags of a merge request that has its own images
REPOSITORY: Final = "$CI_REGISTRY_IMAGE/ci"  # GitLab expands the variable in image:


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """The edited files of a pipeline, new files by their path in the project, and remarks, the most important first.

    `baked` are the names of the jobs that run on baked images.
    """

    files: tuple[EditedFile, ...]
    remarks: tuple[Remark, ...]
    baked: frozenset[str]
    new: Mapping[str, str] = field(default_factory=dict)


def adopt(pipeline: Pipeline, matrix: Matrix, component: str = "") -> Adoption:
    """Rewrite the files of a pipeline so that the jobs that use Python run on the images of a matrix.

    The component is included if its address is given, or if the project has a copy of it, as `builder init` leaves it.
    """
    includes = not pipeline.has_component and (bool(component) or _has_copy(pipeline))
    suffix = PREBUILT if (pipeline.has_component or includes) and pipeline.has_merge_requests else ""
    lock = None if any(profile.lock for profile in matrix.profiles.values()) else _baked_lock(pipeline)
    images = Images(matrix=matrix, repository=matrix.repository or REPOSITORY, suffix=suffix, lock=lock)
    adoption = _adopt(pipeline, images)
    return _including(pipeline, adoption, component) if includes and adoption.baked else adoption


def _has_copy(pipeline: Pipeline) -> bool:
    return pipeline.folder is not None and not pipeline.is_part and (pipeline.folder / COPY).is_file()


def _including(pipeline: Pipeline, adoption: Adoption, component: str) -> Adoption:
    """The adoption with the component: at an address, or with '' the project's own copy."""
    baked = [job for job in read_jobs(pipeline) if job.name in adoption.baked]
    inclusion = include_component(pipeline, adoption.files[0], component, baked)
    files = (inclusion.file, *adoption.files[1:])
    return replace(adoption, files=files, remarks=(*inclusion.remarks, *adoption.remarks))


def adopt_without_matrix(pipeline: Pipeline, component: str) -> Adoption:
    """Do the same for a project without a matrix: propose one, and to include the component at this address.

    With '' as the address, the project gets a copy of the component. Nothing is proposed if no job can be moved.
    """
    jobs = {job.name: job for job in read_jobs(pipeline) if not job.is_trigger and not job.is_partial}
    # A job that only installs tools by name, such as one that publishes, gains nothing from a cell of its own.
    workers = [job for job in jobs.values() if works_on_project(job, pipeline.folder)]
    # A file of hidden jobs alone is for other projects, which would need images of that name too.
    is_for_others = not pipeline.is_part and all(job.name.startswith(".") for job in workers)
    if is_for_others:
        return _unchanged(pipeline, ())
    text, adoption = _adopt_proposed(pipeline, workers, jobs.values())
    workers = [job for job in workers if job.name in adoption.baked]
    if not text or not workers:
        return _unchanged(pipeline, adoption.remarks)
    text, adoption = _adopt_proposed(pipeline, workers, jobs.values())  # without cells that only others want
    jobs = {name: job for name, job in jobs.items() if name in adoption.baked}
    new = {MATRIX_NAME: text}
    if pipeline.has_component:
        return replace(adoption, new=new)
    if not component:
        new[COPY] = component_text()
    return replace(_including(pipeline, adoption, component), new=new)


def _baked_lock(pipeline: Pipeline) -> ProjectLock | None:
    """The lock that images are made from: the one that the include of the component names, else the project's first."""
    if pipeline.folder is None:
        return None
    found = find_project_lock(pipeline.folder)
    every = (found.path, *found.others)
    inputs = (match[1] for file in pipeline.files for match in _LOCK_INPUT.finditer(file.text))
    path = next((name for name in inputs if name in every), found.path)
    return replace(found, path=path, others=tuple(other for other in every if other != path))


def _unchanged(pipeline: Pipeline, remarks: tuple[Remark, ...]) -> Adoption:
    edits = Edits(removed=frozenset(), replaced={})
    left = tuple(remark for remark in remarks if remark.kind == "left-alone")
    return Adoption(files=tuple(file.edit(edits) for file in pipeline.files), remarks=left, baked=frozenset())


def _adopt_proposed(pipeline: Pipeline, workers: Sequence[Job], jobs: Iterable[Job]) -> tuple[str, Adoption]:
    """The matrix that is proposed for these jobs of all, '' if there is none, and the adoption with it."""
    python = project_python(pipeline.folder)
    others = [job for job in jobs if job not in workers]
    text = propose_matrix(workers, others, pipeline.folder)
    images = Images(
        matrix=parse_matrix(text, source=MATRIX_NAME) if text else built_in_matrix(python),
        repository=REPOSITORY,
        newest_python=python if any(map(leaves_python_open, workers)) else "",
        suffix=PREBUILT if pipeline.has_merge_requests else "",
        lock=_baked_lock(pipeline),
    )
    return text, _adopt(pipeline, images)


def _adopt(pipeline: Pipeline, images: Images) -> Adoption:
    jobs = read_jobs(pipeline)
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
    edits = Edits(removed=draft.removal.slots, replaced=draft.replaced, images=draft.own_images)
    files = tuple(file.edit(edits.within(file)) for file in pipeline.files)
    return Adoption(
        files=files, remarks=tuple(in_order(draft.remarks)), baked=frozenset(job.name for job in draft.baked)
    )
