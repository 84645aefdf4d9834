"""Change a `.gitlab-ci.yml` whose jobs install their dependencies so that the jobs run on baked images.

Each rule proposes slots to remove, and `removal` adds what depends on them. What would break something else is left
alone, with a remark. The order matters: images come first, because the other rules apply only to jobs on baked images;
variables come last, because they can go only when nothing uses them any more.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

from builder.errors import listed
from builder.gitlab.adopt.draft import Draft, Remark, variable_values
from builder.gitlab.adopt.file import Alias, Collection, Edits, GitLabFile, Node, Scalar, Slot, walk
from builder.gitlab.adopt.image import Refusal, Replacement, find_replacement
from builder.gitlab.adopt.job import Job, read_jobs
from builder.gitlab.adopt.removal import outermost_slots, removed_nodes
from builder.gitlab.adopt.script import ONLY_INSTALLS, OVERRIDES, in_project, is_inside
from builder.gitlab.adopt.venv import conflicting_jobs, drop_environments, drop_lines, failing_lines
from builder.matrix.model import Matrix

REPOSITORY: Final = "$CI_REGISTRY_IMAGE/ci"  # GitLab expands the variable in image:
_BAKED_JOB: Final = re.compile(r"\.prebuilt(?:-.*)?")  # the jobs that `builder ci images` writes
_CACHE_VARIABLES: Final = frozenset({"PIP_CACHE_DIR", "UV_CACHE_DIR"})
_DEPENDENCY_PATHS: Final = frozenset({
    ".cache/pip", ".cache/uv", ".uv-cache", ".pip-cache", "venv", ".venv",
    "~/.cache/pip", "~/.cache/uv",
})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """The new text of a file, and remarks about it, in the order of the file."""

    text: str
    remarks: tuple[Remark, ...]


def adopt(file: GitLabFile, matrix: Matrix) -> Adoption:
    """Rewrite a GitLab file so that the jobs that use Python run on the images of a matrix."""
    refused: frozenset[str] = frozenset()
    while True:  # which jobs conflict with an environment that stays is known only once the images are chosen
        draft = Draft(file, read_jobs(file), matrix, matrix.repository or REPOSITORY, refused)
        _replace_images(draft)
        drop_environments(draft)
        conflicting = conflicting_jobs(draft)
        if conflicting <= refused:
            break
        refused |= conflicting
    drop_lines(draft)
    _drop_stores(draft)
    _drop_variables(draft)
    _remark_on_leftovers(draft)
    _remark_on_duplicate_keys(draft)
    text = file.edit(Edits(removed=draft.removed, replaced=draft.replaced))
    return Adoption(text=text, remarks=tuple(sorted(draft.remarks)))


def patch(name: str, before: str, after: str) -> str:
    """The difference between two texts, for `git apply` and `patch -p1`; '' if they are equal."""
    tab = "\t" if " " in name else ""  # marks the end of a name with spaces, as in Git
    old, new = (re.findall(r"[^\n]*\n|[^\n]+\Z", text) for text in (before, after))
    lines = difflib.unified_diff(old, new, f"a/{name}{tab}", f"b/{name}{tab}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _replace_images(draft: Draft) -> None:
    """Replace Python images by those of the cells, at the place of their definition."""
    by_image: dict[Scalar, list[Job]] = {}
    for job in draft.jobs:
        if job.image:
            by_image.setdefault(job.image, []).append(job)
        elif any(_BAKED_JOB.fullmatch(base) for base in job.missing_bases):
            draft.baked.add(job)
        elif line := draft.installing[job]:
            draft.remark(line.scalar.start, job, f"left alone: {_without_image(draft, job)}")
    for image, users in by_image.items():
        if image.value.startswith((f"{draft.repository}:", f"{draft.repository}@")):
            draft.baked.update(users)
        else:
            _replace_image(draft, image, users)


def _without_image(draft: Draft, job: Job) -> str:
    if job.missing_bases:
        return f"it extends {listed(job.missing_bases)}, which this file does not define"
    names = listed([f"{draft.repository}:{cell.name}" for cell in draft.matrix.cells])
    return f"it has no image; if it runs on a Docker runner, set `image:` to one of {names}"


def _replace_image(draft: Draft, image: Scalar, users: Sequence[Job]) -> None:
    variable_sets = [variables for job in users for variables in job.variable_sets]
    replacement = find_replacement(image.value, variable_sets, draft.matrix, draft.repository)
    if replacement is None:
        for job in users:
            if draft.installing[job]:
                draft.remark(image.start, job, f"left alone: {image.value} is not a Python image that builder knows")
    elif isinstance(replacement, Refusal):
        draft.remark(image.start, users[0], f"left alone: {replacement.reason}")
    elif not draft.file.is_replaceable(image):
        draft.remark(image.start, users[0], f"left alone: write {replacement.image} here, on one line")
    else:
        _bake(draft, image, users, replacement)


def _bake(draft: Draft, image: Scalar, users: Sequence[Job], replacement: Replacement) -> None:
    """Replace an image, unless one of its jobs would fail on the new one."""
    failing = [(job, index, reason) for job in users for index, reason in failing_lines(draft, job)]
    for job, index, reason in failing:
        draft.remark(index, job, f"left alone, and so is its image {image.value}: {reason}")
    if failing:
        return
    draft.replaced[image] = replacement.image
    draft.baked.update(users)
    draft.dropped_variables |= replacement.dropped_variables
    for note in replacement.notes:
        draft.remark(image.start, users[0], note)


def _drop_stores(draft: Draft) -> None:
    """Remove dependencies from caches and artifacts."""
    users: dict[Collection, list[Job]] = {}
    for job in draft.jobs:
        for group in job.stores:
            for member in group:
                users.setdefault(member, []).append(job)
    proposals: list[tuple[Set[Slot], Collection]] = []
    for store, store_users in sorted(users.items(), key=lambda pair: pair[0].start):
        baked = [job for job in store_users if job in draft.baked]
        dependencies = {slot for slot in _paths(store) if baked and _is_dependency(slot.value, baked[0], draft)}
        if dependencies and (blocked := draft.reason_to_keep(store_users)):
            draft.remark(store.start, store_users[0], f"its cache or artifacts stay: {blocked}")
        elif dependencies:
            proposals.append((dependencies, store))
    for store, reason in draft.remove_each(proposals):
        draft.remark(store.start, users[store][0], f"its cache or artifacts stay: {reason}")


def _paths(store: Collection) -> Iterator[Slot]:
    """The items of `paths` of a cache or of artifacts; an alias is followed to its anchor."""
    for slot in store.slots:
        value = slot.value.target if isinstance(slot.value, Alias) else slot.value
        if slot.name == "paths" and isinstance(value, Collection) and not value.is_mapping:
            yield from value.slots


def _is_dependency(node: Node, job: Job, draft: Draft) -> bool:
    """Whether a path contains installed or downloaded packages and nothing else."""
    if not isinstance(node, Scalar):
        return False
    values = variable_values(job)
    path = in_project(node.value, values)
    paths = {name: in_project(value, values) for name, value in values.items()}
    if path in {*_DEPENDENCY_PATHS, *draft.venvs, *(paths[name] for name in _CACHE_VARIABLES & paths.keys())}:
        return True
    inner = {name for name, other in paths.items() if f"{other}/".startswith(f"{path}/")}
    return bool(inner) and inner <= _CACHE_VARIABLES


def _drop_variables(draft: Draft) -> None:
    """Remove variables that override those of the image, and those that nothing uses any more."""
    users: dict[Slot, list[Job]] = {}
    for job in draft.jobs:
        for slot in job.variables.values():
            users.setdefault(slot, []).append(job)
    before, kept = None, dict[Slot, str]()
    while before != draft.removed:  # a removed variable may have been the only use of another one
        before, kept = draft.removed, {}
        gone, uses = removed_nodes(draft.removed), draft.variable_uses()
        proposals: list[tuple[Set[Slot], Slot]] = []
        for slot, slot_users in users.items():
            decision = _removal_decision(draft, slot, slot_users, uses) if slot not in gone else None
            if decision is True:
                proposals.append(({slot}, slot))
            elif decision:
                kept[slot] = decision
        kept.update(draft.remove_each(proposals))
    for slot, reason in kept.items():
        draft.remark(slot.start, None, f"{slot.name} stays: {reason}")


def _removal_decision(draft: Draft, slot: Slot, users: Sequence[Job], uses: Mapping[str, Scalar]) -> bool | str:
    """Whether to remove a variable; a text says why it has to stay although it should go."""
    baked = [job for job in users if job in draft.baked]
    if not baked:
        return False
    if _is_overriding(slot, baked[0]):
        use = uses.get(slot.name)
        return f"line {draft.file.line(use.start)} uses it" if use else draft.reason_to_keep(users) or True
    if slot.name == "UV_PYTHON":
        return "it may be intended; without it, jobs use the Python of the image"
    if slot.name not in draft.dropped_variables - OVERRIDES or slot.name in uses:
        return False
    has_includes = any(top.name == "include" for top in draft.file.root.slots)
    return not has_includes or "nothing in this file uses it any more, but an included file might"


def _is_overriding(slot: Slot, job: Job) -> bool:
    """Whether a variable overrides one of the image, or configures a cache that is removed."""
    if slot.name in {"UV_CACHE_DIR", "UV_LINK_MODE", "UV_COMPILE_BYTECODE"}:
        return True
    path = in_project(variable_values(job).get(slot.name, ""), variable_values(job))
    if slot.name == "UV_PYTHON":
        return is_inside(path) and (path == ".venv" or "/" in path)
    return slot.name in OVERRIDES and is_inside(path)


def _remark_on_duplicate_keys(draft: Draft) -> None:
    """Point out duplicate keys, of which only the last one counts."""
    for mapping in walk(draft.file.root):
        last = {slot.name: slot for slot in mapping.slots}
        for slot in mapping.slots:
            if mapping.is_mapping and slot.name != "<<" and slot is not (duplicate := last[slot.name]):
                line = draft.file.line(duplicate.start)
                draft.remark(slot.start, None, f"line {line} defines {slot.name} again, and GitLab uses that one")


def _remark_on_leftovers(draft: Draft) -> None:
    """Point out comments on removed lines, and jobs that have become useless."""
    text = draft.file.text
    for slot in outermost_slots(draft.file, draft.removed):
        above = text.rfind("\n", 0, slot.start)
        comment = text.rfind("\n", 0, max(above, 0)) + 1
        if above > 0 and text[comment:above].lstrip().startswith("#"):
            draft.remark(comment, None, "this comment stays, but the lines below it are removed")
    gone = removed_nodes(draft.removed)
    for job in draft.baked:
        left = [line for line in job.lines if line.scalar not in gone]
        if left and all(ONLY_INSTALLS.fullmatch(line.scalar.value.strip()) for line in left):
            draft.remark(
                job.slot.start, job, "it only installs what the image has; you can delete it and any `needs` on it"
            )
