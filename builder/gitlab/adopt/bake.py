"""Replace the images of Python jobs by those of the matrix, each where it is defined."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from builder.errors import listed
from builder.gitlab.adopt.cell import Replacement, find_replacement
from builder.gitlab.adopt.draft import Draft
from builder.gitlab.adopt.image import Refusal
from builder.gitlab.adopt.job import Job, expand
from builder.gitlab.adopt.lock import ProjectLock
from builder.gitlab.adopt.manager import faults_of
from builder.gitlab.adopt.node import Collection, Scalar
from builder.gitlab.adopt.package import needs_of
from builder.gitlab.adopt.pipeline import Place
from builder.gitlab.adopt.script import in_project
from builder.gitlab.adopt.venv import failing_lines
from builder.matrix.model import Cell

# Where a job installs from: the folder that it enters before, or one that an option names, or a file of requirements.
_ENTERS: Final = re.compile(r"(?:^|[;&(\n])\s*cd\s+([^\s;&|)]+)")
_NAMES: Final = re.compile(r"\s(?:--directory|--project|-r|--requirement)[= ]\s*([^\s;&|]+)")
_INSTALLS: Final = re.compile(
    r"\buv (?:sync|run|pip)\b|\bpip3? install\b.*\s(?:-r|--requirement|-e|\.)"
    r"|\b(?:poetry|pdm|pipenv) (?:install|sync|run)\b"
)
_BAKED_JOB: Final = re.compile(r"\.prebuilt(?:-.*)?")  # the jobs that `builder ci images` writes


def replace_images(draft: Draft) -> None:
    """Replace Python images by those of the cells, at the place of their definition."""
    by_image: dict[Scalar, list[Job]] = {}
    for job in draft.jobs:
        if job.image:
            by_image.setdefault(job.image, []).append(job)
        elif any(_BAKED_JOB.fullmatch(base) for base in job.missing_bases):
            draft.baked.add(job)
        elif line := draft.installing[job]:
            draft.remark(line.scalar, job, f"left alone: {_without_image(draft, job)}", kind="left-alone")
    for image, users in by_image.items():
        if image.value.startswith((f"{draft.images.repository}:", f"{draft.images.repository}@")):
            draft.baked.update(users)
        else:
            _replace_image(draft, image, users)


def _without_image(draft: Draft, job: Job) -> str:
    if job.missing_bases:
        return f"it extends {listed(job.missing_bases)}, which no file here defines"
    names = listed([f"{draft.images.repository}:{cell.name}" for cell in draft.images.matrix.cells])
    return f"it has no image; if it runs on a Docker runner, set `image:` to one of {names}"


def _replace_image(draft: Draft, image: Scalar, users: Sequence[Job]) -> None:
    variable_sets = [variables for job in users for variables in job.variable_sets]
    replacement = find_replacement(
        image.value, variable_sets, draft.images.matrix, draft.images.repository, draft.images.newest_python
    )
    if replacement is None:
        for job in users:
            if draft.installing[job]:
                draft.remark(
                    image, job, f"left alone: {image.value} is not a Python image that builder knows", kind="left-alone"
                )
    elif isinstance(replacement, Refusal):
        draft.remark(image, users[0], f"left alone: {replacement.reason}", kind="left-alone")
    elif not draft.pipeline.file_of(image).is_replaceable(image):
        draft.remark(image, users[0], f"left alone: write {replacement.image} here, on one line", kind="left-alone")
    else:
        _bake(draft, image, users, replacement)


def _bake(draft: Draft, image: Scalar, users: Sequence[Job], replacement: Replacement) -> None:
    """Replace an image. Jobs that would fail on the new one keep theirs; if they cannot, it stays for all of them."""
    failing: dict[Job, None] = {}
    for job in users:
        for place, reason in _faults(draft, job, replacement.slimmer):
            failing[job] = None
            draft.remark(place, job, f"left alone, and so is its image {image.value}: {reason}", kind="left-alone")
    own = {mapping: image for job in failing if (mapping := _own_mapping(draft, job, image))}
    if len(own) < len(failing) or 2 * len(failing) > len(users):
        return
    draft.own_images |= own
    draft.replaced[image] = f"{replacement.image}{draft.images.suffix}"
    draft.baked.update(job for job in users if job not in failing)
    draft.dropped_variables |= replacement.dropped_variables if not own else set()
    for note in replacement.notes:
        draft.remark(image, users[0], note, kind="check")


def _own_mapping(draft: Draft, job: Job, image: Scalar) -> Collection | None:
    """The mapping of a job that can get an image of its own; None if it has one already, or is not a block."""
    mapping, holder = job.slot.value, draft.pipeline.holders[image]
    is_inherited = holder.name == "image" and draft.pipeline.top(holder).name != job.name
    if not isinstance(mapping, Collection) or mapping.is_flow or any(slot.name == "image" for slot in mapping.slots):
        return None
    is_plain = not image.tag and not image.anchor and draft.pipeline.file_of(image).is_replaceable(image)
    return mapping if is_inherited and is_plain and not job.name.startswith(".") else None


def _faults(draft: Draft, job: Job, slimmer: Sequence[Cell]) -> Iterator[tuple[Place, str]]:
    """Why a job would fail on a baked image, and where; `slimmer` are the cells that replace a full image."""
    yield from failing_lines(draft, job)
    yield from faults_of(draft, job)
    if draft.images.lock and (lock := _other_lock(draft.images.lock, job)):
        reason = f"it works with {lock}, and the images are made from {draft.images.lock.path}"
        yield draft.pipeline.place(job.slot), f"{reason}; a profile of the matrix can have that lock"
    if job in draft.handed_over:
        yield draft.pipeline.place(job.slot), draft.handed_over[job]
    for cell in slimmer:
        present = {package.partition("=")[0] for package in cell.packages}
        for need in needs_of(job, draft.pipeline.folder, present):
            advice = f'add "{need.package}" to packages of bases.{cell.base} in {draft.images.matrix.source}'
            reason = f"`{need.command}` needs {need.package}, which {cell.name} lacks; {advice}"
            yield draft.pipeline.place(need.line.scalar), reason


def _other_lock(baked: ProjectLock, job: Job) -> str:
    """The lock of another folder that a job works in; '' if it works with the one that is baked."""
    text = "\n".join(line.scalar.value for line in job.lines)
    installs = _INSTALLS.search(text)
    entered = [match[1] for match in _ENTERS.finditer(text, 0, installs.start() if installs else len(text))]
    named = [*entered, *(match[1] for match in _NAMES.finditer(text))]
    paths = {in_project(expand(path, values), values) for path in named for values in job.variable_sets}
    if baked.path in paths:
        return ""
    for lock in baked.others:
        folder = lock.rpartition("/")[0]
        if lock in paths or (folder and any(f"{path}/".startswith(f"{folder}/") for path in paths)):
            return lock
    return ""
