"""What is removed from a pipeline, and what must go with it for the file to stay valid and its jobs as they were.

No empty collection stays behind, no alias without its anchor, and no `extends` or `!reference` without its target. What
cannot be removed in this way, or what files that were not read may use, is not removed at all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Final

from builder.gitlab.adopt.job import CONTENT_KEYS, GLOBAL_KEYWORDS, STORES, Job, scalars
from builder.gitlab.adopt.node import Alias, Collection, Node, Scalar, Slot, walk
from builder.gitlab.adopt.pipeline import Pipeline

# Global keywords that jobs of files that were not read inherit.
_INHERITED: Final = frozenset({"default", "cache", "before_script", "after_script"})


@dataclass(frozen=True, kw_only=True)
class Obstacle:
    """Why a removal is impossible, and which slot prevents it."""

    slot: Slot
    reason: str


def parts_of(slot: Slot) -> Iterator[Node | Slot]:
    """The slot, its value, and every node and slot inside that."""
    yield slot
    yield slot.value
    for collection in walk(slot.value):
        yield collection
        for inner in collection.slots:
            yield inner
            yield inner.value


class _Links:
    """What depends on each part of a pipeline."""

    def __init__(self, pipeline: Pipeline, jobs: Sequence[Job]) -> None:
        self._pipeline = pipeline
        self.aliases: defaultdict[Node, list[Slot]] = defaultdict(list)
        self.references: defaultdict[Slot, list[Slot]] = defaultdict(list)
        self.extends: defaultdict[str, list[Slot]] = defaultdict(list)
        self.stores: defaultdict[Slot, list[tuple[Collection, ...]]] = defaultdict(list)
        self.scripts: defaultdict[Slot, list[Job]] = defaultdict(list)
        self.overriding: defaultdict[Slot, list[tuple[Job, str]]] = defaultdict(list)
        self.same: defaultdict[tuple[Collection, str], list[Slot]] = defaultdict(list)
        for collection in pipeline.collections():
            self._read(collection)
        for job in jobs:
            self._read_job(job)

    def _read(self, collection: Collection) -> None:
        if collection.tag == "!reference":
            for slot in self._path(collection):
                self.references[slot].append(self._pipeline.holders[collection])
        for slot in collection.slots:
            if isinstance(slot.value, Alias):
                self.aliases[slot.value.target].append(slot)
            if slot.name == "extends":
                for name in scalars(slot.value):
                    self.extends[name.value].append(self._pipeline.holders[name])
            if slot.name:
                self.same[collection, slot.name].append(slot)

    def _path(self, reference: Collection) -> list[Slot]:
        """The entries that a `!reference` goes through, in the first definition that has them all."""
        job, *keys = [key.value for key in scalars(reference)] or [""]
        for top in self._pipeline.tops.get(job, ()):
            path = [top]
            for key in keys:
                slots = path[-1].value.slots if isinstance(path[-1].value, Collection) else ()
                path += [slot for slot in slots if slot.name == key][:1]
            if len(path) == 1 + len(keys):
                return path
        return []

    def _read_job(self, job: Job) -> None:
        for group in job.stores:
            for slot in (slot for member in group for slot in member.slots):
                self.stores[slot].append(group)
        for slot in job.inherited["script"][:1]:
            self.scripts[slot].append(job)
        for key in ("before_script", "after_script", "cache"):
            for slot in job.inherited[key][:1]:
                self.overriding[slot].append((job, key))


class Removal:
    """The slots that are removed so far; `gone` has every part inside them as well."""

    def __init__(self, pipeline: Pipeline, jobs: Sequence[Job]) -> None:
        self._pipeline = pipeline
        self._links = _Links(pipeline, jobs)
        self._cut: Counter[Collection] = Counter()  # how many slots each collection has lost
        self.slots: set[Slot] = set()
        self.gone: set[Node | Slot] = set()

    def add(self, slots: Iterable[Slot]) -> set[Slot] | Obstacle:
        """Remove slots and everything that depends on them, and return all of these; or remove nothing."""
        added, gone = self._complete(slots)
        if obstacle := next(self._obstacles(added, gone), None):
            self.slots -= added
            self.gone.difference_update(gone)
            self._cut.subtract(self._pipeline.owners[slot] for slot in added)
            return obstacle
        return added

    def outermost(self, slots: Set[Slot]) -> list[Slot]:
        """Those of the removed slots that are not inside another one, in the order of the files."""
        owners = self._pipeline.owners
        return sorted((slot for slot in slots if owners[slot] not in self.gone), key=self._pipeline.position)

    def _complete(self, slots: Iterable[Slot]) -> tuple[set[Slot], list[Node | Slot]]:
        added: set[Slot] = set()
        gone: list[Node | Slot] = []
        queue = list(slots)
        while queue:
            slot = queue.pop()
            if slot in self.slots:
                continue
            self.slots.add(slot)
            added.add(slot)
            for part in parts_of(slot):
                if part not in self.gone:
                    self.gone.add(part)
                    gone.append(part)
                    queue += self._dependents(part)
            owner = self._pipeline.owners[slot]
            self._cut[owner] += 1
            if self._cut[owner] == len(owner.slots) and owner in self._pipeline.holders:
                queue.append(self._pipeline.holders[owner])  # it would be empty
        return added, gone

    def _dependents(self, part: Node | Slot) -> Iterator[Slot]:
        if not isinstance(part, Slot):
            yield from self._links.aliases.get(part, ())
            return
        yield from self._links.references.get(part, ())
        if self._pipeline.is_top(part) and all(slot in self.gone for slot in self._pipeline.tops.get(part.name, ())):
            yield from self._links.extends.get(part.name, ())
        for group in self._links.stores.get(part, ()):
            if self._lost_its_content(group):
                yield from (self._pipeline.holders[member] for member in group)

    def _lost_its_content(self, group: Sequence[Collection]) -> bool:
        """Whether a cache or artifacts had content, and all of it is removed."""
        content = [slot for member in group for slot in member.slots if slot.name in CONTENT_KEYS and _is_set(slot)]
        return bool(content) and all(slot in self.gone for slot in content)

    def _obstacles(self, added: Set[Slot], gone: Sequence[Node | Slot]) -> Iterator[Obstacle]:
        for slot in self.outermost(added):
            yield from self._obstacles_to(slot)
        for part in gone:
            if isinstance(part, Slot):
                for job in self._links.scripts.get(part, ()):
                    yield Obstacle(slot=part, reason=f"the script of {job.name} would be empty")
                for job, key in self._links.overriding.get(part, ()):
                    yield from self._returning(part, job, key)

    def _obstacles_to(self, slot: Slot) -> Iterator[Obstacle]:
        owner, file = self._pipeline.owners[slot], self._pipeline.file_of(slot)
        if owner is file.root and not slot.name.startswith(".") and slot.name not in GLOBAL_KEYWORDS:
            yield Obstacle(slot=slot, reason="the job would be empty")
        others = [*self._links.same.get((owner, slot.name), ())]
        others += self._pipeline.tops.get(slot.name, ()) if owner is file.root else ()
        for other in others:
            if slot.key and other is not slot and other not in self.slots:
                yield Obstacle(slot=slot, reason=f"without it, {slot.name} in {self._line(other, slot)} would apply")
        if file.span(slot, self.slots) is None:
            yield Obstacle(slot=slot, reason="it shares its line with something else")
        if self._cut[file.root] == len(file.root.slots):
            yield Obstacle(slot=slot, reason="the file would be empty")
        if self._pipeline.has_unknown_users and self._is_offered(slot):
            yield Obstacle(slot=slot, reason="a file that is included from elsewhere may use it")

    def _is_offered(self, slot: Slot) -> bool:
        """Whether files that were not read can refer to a slot, or inherit it: all but single lines of hidden jobs."""
        top = self._pipeline.top(slot)
        if top.name in _INHERITED:
            return not self._pipeline.has_only_templates
        if not top.name.startswith("."):
            return False
        key: Slot | None = slot
        while key and self._pipeline.owners[key] is not top.value and key is not top:
            key = self._pipeline.holders.get(self._pipeline.owners[key])
        return slot is top or key is slot or (key is not None and key.name in STORES)

    def _returning(self, slot: Slot, job: Job, key: str) -> Iterator[Obstacle]:
        """Definitions of a keyword that would apply again once the one in force is removed."""
        for other in job.inherited[key][1:]:
            if other not in self.gone:
                line = self._line(other, slot)
                yield Obstacle(slot=slot, reason=f"without it, the {key} in {line} would apply to {job.name}")

    def _line(self, slot: Slot, seen_from: Slot) -> str:
        place = self._pipeline.place(slot)
        is_here = place.source == self._pipeline.place(seen_from).source
        return f"line {place.line}" if is_here else f"{place.source}:{place.line}"


def _is_set(slot: Slot) -> bool:
    return not (isinstance(slot.value, Scalar) and slot.value.value.lower() in {"false", "no", "off"})
