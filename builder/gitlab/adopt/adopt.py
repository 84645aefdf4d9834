"""What to change in a `.gitlab-ci.yml` whose jobs install their dependencies, so that they run on baked images.

Each rule proposes slots to take out, `removal` says what has to go along, and what cannot be done without breaking
something else is left alone and said. The order matters: images first, for the rest follows from which jobs are on
baked ones; variables last, for what is gone names them no more.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

from builder.errors import listed
from builder.gitlab.adopt.draft import Draft, Remark, environment
from builder.gitlab.adopt.file import Alias, Collection, Edits, GitLabFile, Node, Scalar, Slot, walk
from builder.gitlab.adopt.image import Refusal, Replacement, replacement
from builder.gitlab.adopt.job import Job, jobs
from builder.gitlab.adopt.removal import inside, outermost
from builder.gitlab.adopt.script import ONLY_INSTALLS, OVERRIDES, in_project, is_inside
from builder.gitlab.adopt.venv import broken, drop_environments, drop_lines, faults
from builder.matrix.model import Matrix

REPOSITORY: Final = "$CI_REGISTRY_IMAGE/ci"  # GitLab expands it in image:
_BAKED_JOB: Final = re.compile(r"\.prebuilt(?:-.*)?")  # what `builder ci images` writes
_CACHES: Final = frozenset({"PIP_CACHE_DIR", "UV_CACHE_DIR"})
_STORED: Final = frozenset({
    ".cache/pip", ".cache/uv", ".uv-cache", ".pip-cache", "venv", ".venv",
    "~/.cache/pip", "~/.cache/uv",
})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """The new text of a file, and what is to be said of it, in the order of the file."""

    text: str
    remarks: tuple[Remark, ...]


def adopt(file: GitLabFile, matrix: Matrix) -> Adoption:
    """Rewrite a GitLab file so that the jobs that use Python run on the images of a matrix."""
    refused: frozenset[str] = frozenset()
    while True:  # what an environment that stays breaks shows only when the images are chosen
        draft = Draft(file, jobs(file), matrix, matrix.repository or REPOSITORY, refused)
        _replace_images(draft)
        drop_environments(draft)
        if broken(draft) <= refused:
            break
        refused |= broken(draft)
    drop_lines(draft)
    _drop_stores(draft)
    _drop_variables(draft)
    _look_back(draft)
    _look_for_doubles(draft)
    text = file.edit(Edits(removed=draft.removed, replaced=draft.replaced))
    return Adoption(text=text, remarks=tuple(sorted(draft.remarks)))


def patch(name: str, before: str, after: str) -> str:
    """The difference of two texts as `git apply` and `patch -p1` take it, '' where there is none."""
    tab = "\t" if " " in name else ""  # as Git does, so that a name with spaces has an end
    old, new = (re.findall(r"[^\n]*\n|[^\n]+\Z", text) for text in (before, after))
    lines = difflib.unified_diff(old, new, f"a/{name}{tab}", f"b/{name}{tab}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _replace_images(draft: Draft) -> None:
    """Put the cells' names in place of Python images, where they are defined."""
    by_image: dict[Scalar, list[Job]] = {}
    for job in draft.jobs:
        if job.image:
            by_image.setdefault(job.image, []).append(job)
        elif any(_BAKED_JOB.fullmatch(base) for base in job.bases):
            draft.baked.add(job)
        elif line := draft.installing[job]:
            draft.say(line.scalar.start, job, f"left alone: {_without_image(draft, job)}")
    for image, users in by_image.items():
        if image.value.startswith((f"{draft.repository}:", f"{draft.repository}@")):
            draft.baked.update(users)
        else:
            _replace_image(draft, image, users)


def _without_image(draft: Draft, job: Job) -> str:
    if job.is_foreign:
        return f"what it extends ({listed(job.bases)}) is not in this file"
    names = listed([f"{draft.repository}:{cell.name}" for cell in draft.matrix.cells])
    return f"it names no image; if a Docker runner takes it, write `image:` with {names}"


def _replace_image(draft: Draft, image: Scalar, users: Sequence[Job]) -> None:
    environments = [each for job in users for each in job.environments]
    found = replacement(image.value, environments, draft.matrix, draft.repository)
    if found is None:
        for job in users:
            if draft.installing[job]:
                draft.say(image.start, job, f"left alone: {image.value} is not a Python image that builder knows")
    elif isinstance(found, Refusal):
        draft.say(image.start, users[0], f"left alone: {found.why}")
    elif not draft.file.is_replaceable(image):
        draft.say(image.start, users[0], f"left alone: write {found.image} here, on one line")
    else:
        _bake(draft, image, users, found)


def _bake(draft: Draft, image: Scalar, users: Sequence[Job], found: Replacement) -> None:
    """Replace an image, unless one of its jobs would fail on the new one."""
    failing = [(job, at, why) for job in users for at, why in faults(draft, job)]
    for job, at, why in failing:
        draft.say(at, job, f"left alone, and so is its image {image.value}: {why}")
    if failing:
        return
    draft.replaced[image] = found.image
    draft.baked.update(users)
    draft.freed |= found.freed
    for note in found.notes:
        draft.say(image.start, users[0], note)


def _drop_stores(draft: Draft) -> None:
    """Take dependencies out of caches and artifacts."""
    users: dict[Collection, list[Job]] = {}
    for job in draft.jobs:
        for group in job.stores:
            for member in group:
                users.setdefault(member, []).append(job)
    proposals: list[tuple[Set[Slot], Collection]] = []
    for store, its in sorted(users.items(), key=lambda pair: pair[0].start):
        baked = [job for job in its if job in draft.baked]
        dependencies = {slot for slot in _paths(store) if baked and _is_dependency(slot.value, baked[0], draft)}
        if dependencies and (blocked := draft.blocked(its)):
            draft.say(store.start, its[0], f"what it stores stays: {blocked}")
        elif dependencies:
            proposals.append((dependencies, store))
    for store, why in draft.remove_each(proposals):
        draft.say(store.start, users[store][0], f"what it stores stays: {why}")


def _paths(store: Collection) -> Iterator[Slot]:
    """The items of `paths` of a cache or of artifacts; an alias leads to where they are written."""
    for slot in store.slots:
        value = slot.value.target if isinstance(slot.value, Alias) else slot.value
        if slot.name == "paths" and isinstance(value, Collection) and not value.is_mapping:
            yield from value.slots


def _is_dependency(node: Node, job: Job, draft: Draft) -> bool:
    """Whether a path holds installed or downloaded packages, and nothing else."""
    if not isinstance(node, Scalar):
        return False
    path = in_project(node.value, environment(job))
    places = {name: in_project(value, environment(job)) for name, value in environment(job).items()}
    if path in {*_STORED, *draft.venvs, *(places[name] for name in _CACHES & places.keys())}:
        return True
    inner = {name for name, place in places.items() if f"{place}/".startswith(f"{path}/")}
    return bool(inner) and inner <= _CACHES


def _drop_variables(draft: Draft) -> None:
    """Take out variables that stand in the place of the image's, or that nothing names any more."""
    users: dict[Slot, list[Job]] = {}
    for job in draft.jobs:
        for slot in job.variables.values():
            users.setdefault(slot, []).append(job)
    before, stays = None, dict[Slot, str]()
    while before != draft.removed:  # one that is gone may have named another
        before, stays = draft.removed, {}
        gone, naming = inside(draft.removed), draft.naming()
        proposals: list[tuple[Set[Slot], Slot]] = []
        for slot, its in users.items():
            wanted = _wanted(draft, slot, its, naming) if slot not in gone else None
            if wanted is True:
                proposals.append(({slot}, slot))
            elif wanted:
                stays[slot] = wanted
        stays.update(draft.remove_each(proposals))
    for slot, why in stays.items():
        draft.say(slot.start, None, f"{slot.name} stays: {why}")


def _wanted(draft: Draft, slot: Slot, users: Sequence[Job], naming: Mapping[str, Scalar]) -> bool | str:
    """Whether a variable is to go, or why not where one would expect it to."""
    baked = [job for job in users if job in draft.baked]
    if not baked:
        return False
    if _is_overriding(slot, baked[0]):
        named = naming.get(slot.name)
        return f"line {draft.file.line(named.start)} names it" if named else draft.blocked(users) or True
    if slot.name == "UV_PYTHON":
        return "it may be meant; without it, jobs use the Python of the image"
    if slot.name not in draft.freed - OVERRIDES or slot.name in naming:
        return False
    is_alone = not any(each.name == "include" for each in draft.file.root.slots)
    return is_alone or "nothing here names it any more, but an included file might"


def _is_overriding(slot: Slot, job: Job) -> bool:
    """Whether a variable hides what the image sets, or serves a cache that is no more."""
    if slot.name in {"UV_CACHE_DIR", "UV_LINK_MODE", "UV_COMPILE_BYTECODE"}:
        return True
    path = in_project(environment(job).get(slot.name, ""), environment(job))
    if slot.name == "UV_PYTHON":
        return is_inside(path) and (path == ".venv" or "/" in path)
    return slot.name in OVERRIDES and is_inside(path)


def _look_for_doubles(draft: Draft) -> None:
    """Say which keys are there twice: of those nothing but the last was read."""
    for mapping in walk(draft.file.root):
        last = {slot.name: slot for slot in mapping.slots}
        for slot in mapping.slots:
            if mapping.is_mapping and slot.name != "<<" and slot is not (again := last[slot.name]):
                line = draft.file.line(again.start)
                draft.say(slot.start, None, f"{slot.name} is there again in line {line}, which is what GitLab takes")


def _look_back(draft: Draft) -> None:
    """Say which comments speak of what is gone, and which jobs do nothing any more."""
    text = draft.file.text
    for slot in outermost(draft.file, draft.removed):
        above = text.rfind("\n", 0, slot.start)
        comment = text.rfind("\n", 0, max(above, 0)) + 1
        if above > 0 and text[comment:above].lstrip().startswith("#"):
            draft.say(comment, None, "this comment is kept; what stood below it is gone")
    gone = inside(draft.removed)
    for job in draft.baked:
        left = [line for line in job.lines if line.scalar not in gone]
        if left and all(ONLY_INSTALLS.fullmatch(line.scalar.value.strip()) for line in left):
            draft.say(job.slot.start, job, "it only installs what the image has; it may go, with each `needs` of it")
