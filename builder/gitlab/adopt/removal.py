"""What to remove from a GitLab file together with a slot, so that it stays valid and its jobs keep their meaning.

No empty collection stays behind, no alias without its anchor, and no `extends` or `!reference` without its target. What
cannot be removed in this way is not removed at all.
"""

from __future__ import annotations

from collections.abc import Collection as Sized
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

from builder.gitlab.adopt.file import Alias, Collection, GitLabFile, Node, Scalar, Slot, walk
from builder.gitlab.adopt.job import CONTENT_KEYS, GLOBAL_KEYWORDS, Job, scalars


@dataclass(frozen=True, kw_only=True)
class Obstacle:
    """Why a removal is impossible, and which slot prevents it."""

    slot: Slot
    reason: str


def complete_removal(file: GitLabFile, jobs: Sequence[Job], slots: Set[Slot]) -> frozenset[Slot] | Obstacle:
    """The slots to remove, with everything that depends on them."""
    removed = frozenset(slots)
    while more := frozenset(_dependents(file, jobs, removed)) - removed:
        removed |= more
    return next(_obstacles(file, jobs, removed), removed)


def removed_nodes(removed: Set[Slot]) -> set[Node | Slot]:
    """Every node and slot inside the removed slots, and the slots themselves."""
    gone: set[Node | Slot] = set(removed)
    for slot in removed:
        gone.add(slot.value)
        for collection in walk(slot.value):
            gone.add(collection)
            gone.update(collection.slots)
            gone.update(inner.value for inner in collection.slots)
    return gone


def outermost_slots(file: GitLabFile, removed: Set[Slot]) -> list[Slot]:
    """The removed slots that are not inside another one, in the order of the file."""
    gone = removed_nodes(removed)
    return sorted((slot for slot in removed if file.owners[slot] not in gone), key=lambda slot: slot.start)


def _dependents(file: GitLabFile, jobs: Sequence[Job], removed: Set[Slot]) -> Iterator[Slot]:
    gone = removed_nodes(removed)
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
            if _lost_its_content(group, gone):
                yield from (file.holders[member] for member in group)


def _refers_into(reference: Collection, file: GitLabFile, removed: Set[Slot]) -> bool:
    node: Node = file.root
    for key in scalars(reference):
        slots = node.slots if isinstance(node, Collection) else ()
        slot = next((slot for slot in slots if slot.name == key.value), None)
        if slot is None:
            return False
        if slot in removed:
            return True
        node = slot.value
    return False


def _lost_its_content(group: Sequence[Collection], gone: Sized[Node | Slot]) -> bool:
    """Whether a cache or artifacts had content, and all of it is removed."""
    content = [slot for member in group for slot in member.slots if slot.name in CONTENT_KEYS and _is_set(slot)]
    return bool(content) and all(slot in gone for slot in content)


def _is_set(slot: Slot) -> bool:
    return not (isinstance(slot.value, Scalar) and slot.value.value.lower() in {"false", "no", "off"})


def _obstacles(file: GitLabFile, jobs: Sequence[Job], removed: Set[Slot]) -> Iterator[Obstacle]:
    gone = removed_nodes(removed)
    for slot in outermost_slots(file, removed):
        if file.owners[slot] is file.root and not slot.name.startswith(".") and slot.name not in GLOBAL_KEYWORDS:
            yield Obstacle(slot=slot, reason="the job would be empty")
        duplicates = [other for other in file.owners[slot].slots if other.name == slot.name and other not in removed]
        if slot.key and duplicates:
            line = file.line(duplicates[0].start)
            yield Obstacle(slot=slot, reason=f"without it, {slot.name} in line {line} would apply")
        if file.span(slot, removed) is None:
            yield Obstacle(slot=slot, reason="it shares its line with something else")
    if all(slot in removed for slot in file.root.slots):
        yield Obstacle(slot=file.root.slots[0], reason="the file would be empty")
    for job in jobs:
        if any(slot in gone for slot in job.inherited["script"][:1]):
            yield Obstacle(slot=job.inherited["script"][0], reason=f"the script of {job.name} would be empty")
        for key in ("before_script", "after_script", "cache"):
            in_force, *overridden = job.inherited[key] or (None,)
            returning = [slot for slot in overridden if slot not in gone]
            if in_force in gone and in_force and returning:
                line = file.line(returning[0].start)
                yield Obstacle(slot=in_force, reason=f"without it, the {key} in line {line} would apply to {job.name}")
