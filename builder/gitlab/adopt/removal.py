"""What has to leave a GitLab file along with what leaves it, so that it stays valid and its jobs keep their meaning.

Nothing empty is left behind, no alias without its anchor, no `extends` or `!reference` without what it names; and what
cannot be taken out so is not taken out at all.
"""

from __future__ import annotations

from collections.abc import Collection as Sized
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

from builder.gitlab.adopt.file import Alias, Collection, GitLabFile, Node, Scalar, Slot, walk
from builder.gitlab.adopt.job import NO_JOBS, STORED, Job, scalars


@dataclass(frozen=True, kw_only=True)
class Obstacle:
    """Why a removal cannot be, and the slot that stands in the way."""

    slot: Slot
    why: str


def removal(file: GitLabFile, jobs: Sequence[Job], wanted: Set[Slot]) -> frozenset[Slot] | Obstacle:
    """The slots wanted out, with all that has to go along."""
    removed = frozenset(wanted)
    while more := frozenset(_along(file, jobs, removed)) - removed:
        removed |= more
    return next(_obstacles(file, jobs, removed), removed)


def inside(removed: Set[Slot]) -> set[Node | Slot]:
    """Every node and slot in the removed ones, themselves too."""
    gone: set[Node | Slot] = set(removed)
    for slot in removed:
        gone.add(slot.value)
        for collection in walk(slot.value):
            gone.add(collection)
            gone.update(collection.slots)
            gone.update(each.value for each in collection.slots)
    return gone


def outermost(file: GitLabFile, removed: Set[Slot]) -> list[Slot]:
    """The removed slots that are in no other, in the order of the file."""
    gone = inside(removed)
    return sorted((slot for slot in removed if file.owners[slot] not in gone), key=lambda slot: slot.start)


def _along(file: GitLabFile, jobs: Sequence[Job], removed: Set[Slot]) -> Iterator[Slot]:
    gone = inside(removed)
    tops = {slot.name for slot in file.root.slots if slot in removed}
    for collection in walk(file.root):
        if collection is not file.root and collection.slots and all(slot in removed for slot in collection.slots):
            yield file.holders[collection]  # it would be empty
        if collection.tag == "!reference" and _refers_into(collection, file, removed):
            yield file.holders[collection]
        for slot in collection.slots:
            if isinstance(slot.value, Alias) and slot.value.target in gone:
                yield slot
            if slot.name == "extends":
                for name in scalars(slot.value):
                    if name.value in tops:
                        yield file.holders[name]
    for job in jobs:
        for group in job.stores:
            if _holds_nothing(group, gone):
                yield from (file.holders[member] for member in group)


def _refers_into(reference: Collection, file: GitLabFile, removed: Set[Slot]) -> bool:
    at: Node = file.root
    for word in scalars(reference):
        slot = (
            next((each for each in at.slots if each.name == word.value), None) if isinstance(at, Collection) else None
        )
        if slot is None:
            return False
        if slot in removed:
            return True
        at = slot.value
    return False


def _holds_nothing(group: Sequence[Collection], gone: Sized[Node | Slot]) -> bool:
    """Whether a cache or artifacts held something, and all of it is gone."""
    held = [slot for member in group for slot in member.slots if slot.name in STORED and _is_set(slot)]
    return bool(held) and all(slot in gone for slot in held)


def _is_set(slot: Slot) -> bool:
    return not (isinstance(slot.value, Scalar) and slot.value.value.lower() in {"false", "no", "off"})


def _obstacles(file: GitLabFile, jobs: Sequence[Job], removed: Set[Slot]) -> Iterator[Obstacle]:
    gone = inside(removed)
    for slot in outermost(file, removed):
        if file.owners[slot] is file.root and not slot.name.startswith(".") and slot.name not in NO_JOBS:
            yield Obstacle(slot=slot, why="nothing of the job would be left")
        twins = [each for each in file.owners[slot].slots if each.name == slot.name and each not in removed]
        if slot.key and twins:
            yield Obstacle(slot=slot, why=f"{slot.name} of line {file.line(twins[0].start)} would take its place")
        if file.span(slot, removed) is None:
            yield Obstacle(slot=slot, why="it shares its line with something else")
    if all(slot in removed for slot in file.root.slots):
        yield Obstacle(slot=file.root.slots[0], why="nothing of the file would be left")
    for job in jobs:
        if any(slot in gone for slot in job.inherited["script"][:1]):
            yield Obstacle(slot=job.inherited["script"][0], why=f"no line of the script of {job.name} would be left")
        for key in ("before_script", "after_script", "cache"):
            in_force, *behind = job.inherited[key] or (None,)
            returning = [slot for slot in behind if slot not in gone]
            if in_force in gone and in_force and returning:
                line = file.line(returning[0].start)
                yield Obstacle(slot=in_force, why=f"without it, the {key} of line {line} would apply to {job.name}")
