"""The files of one pipeline: a `.gitlab-ci.yml`, and what it includes from the same checkout.

GitLab merges these files before it resolves `extends` and `!reference`. An including file takes precedence over the
files that it includes, and a later include over an earlier one. Anchors end with their file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, TypeVar

from builder.gitlab.adopt.file import GitLabFile
from builder.gitlab.adopt.node import Collection, Node, Scalar, Slot, walk

_MERGE_REQUEST: Final = re.compile(r"\bmerge_request_event\b|^merge_requests$")
_COMPONENT_JOB: Final = ".prebuilt-job"
_Part = TypeVar("_Part")
_Whole = TypeVar("_Whole")


@dataclass(frozen=True, kw_only=True, order=True)
class Place:
    """A line of a file, counted from 1."""

    source: str
    line: int


@dataclass(frozen=True, kw_only=True)
class Include:
    """Something that is included from elsewhere, so that its text is unknown: the keyword (`project`) and its value.

    A local file that does not exist, or whose name is not known before the pipeline runs, counts as such too.
    """

    keyword: str
    value: str

    @property
    def is_component(self) -> bool:
        """Whether it is builder's own component, which uses nothing of the project's files."""
        return self.keyword == "component" and "/prebuilt@" in self.value


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """The files of a pipeline by precedence, the first one being the file that includes the others.

    `folder` is the project's, if there is one. `foreign` are the includes that could not be read. `is_part` says that
    other files include this one. `children` are the files of the checkout that child pipelines run.
    """

    files: tuple[GitLabFile, ...]
    folder: Path | None = None
    foreign: tuple[Include, ...] = ()
    is_part: bool = False
    children: tuple[str, ...] = ()

    @cached_property
    def tops(self) -> Mapping[str, tuple[Slot, ...]]:
        """The definitions of each job and global keyword, the effective one first; of duplicates, the last counts."""
        tops: dict[str, tuple[Slot, ...]] = {}
        for file in self.files:
            for name, slot in {slot.name: slot for slot in file.root.slots if slot.name}.items():
                tops[name] = (*tops.get(name, ()), slot)
        return tops

    @cached_property
    def owners(self) -> Mapping[Slot, Collection]:
        """The collection that contains each slot."""
        return _merged(file.owners for file in self.files)

    @cached_property
    def holders(self) -> Mapping[Node, Slot]:
        """The slot that contains each node."""
        return _merged(file.holders for file in self.files)

    @cached_property
    def _files_of_roots(self) -> Mapping[Collection, GitLabFile]:
        return {file.root: file for file in self.files}

    @cached_property
    def _roots(self) -> dict[Collection, Collection]:
        """The root above each collection."""
        return {collection: file.root for file in self.files for collection in walk(file.root)}

    def file_of(self, part: Node | Slot) -> GitLabFile:
        """The file that a node or slot is in."""
        slot = part if isinstance(part, Slot) else self.holders.get(part)
        owner = self.owners[slot] if slot else part
        assert isinstance(owner, Collection)  # noqa: S101 - only a root has no holder
        return self._files_of_roots[self._roots[owner]]

    def top(self, slot: Slot) -> Slot:
        """The top-level entry, a job or a global keyword, that contains this slot."""
        while (owner := self.owners[slot]) not in self._files_of_roots:
            slot = self.holders[owner]
        return slot

    def is_top(self, slot: Slot) -> bool:
        """Whether a slot is a job or a global keyword."""
        return self.owners[slot] in self._files_of_roots

    def place(self, part: Node | Slot, index: int | None = None) -> Place:
        """Where a node or slot begins; or the line of an index into the text of its file."""
        file = self.file_of(part)
        return Place(source=file.source, line=file.line(part.start if index is None else index))

    def position(self, part: Node | Slot) -> tuple[int, int]:
        """A key to sort by: the file, and where in it the part begins."""
        return self.files.index(self.file_of(part)), part.start

    def collections(self) -> Iterator[Collection]:
        """All mappings and sequences of all files."""
        return iter(self._roots)

    @property
    def has_component(self) -> bool:
        """Whether builder's own component builds images in this pipeline."""
        return any(include.is_component for include in self.foreign) or _COMPONENT_JOB in self.tops

    @property
    def has_merge_requests(self) -> bool:
        """Whether GitLab makes pipelines for merge requests of it."""
        is_template = any("MergeRequest-Pipelines" in include.value for include in self.foreign)
        return is_template or any(
            isinstance(slot.value, Scalar) and _MERGE_REQUEST.search(slot.value.value)
            for file in self.files
            if not any(top.name == _COMPONENT_JOB for top in file.root.slots)  # a copy of the component has such rules
            for collection in walk(file.root)
            for slot in collection.slots
        )

    @property
    def has_unknown_users(self) -> bool:
        """Whether files that were not read may extend or reference what is defined here."""
        return self.is_part or not all(include.is_component for include in self.foreign)

    @property
    def has_only_templates(self) -> bool:
        """Whether the only ones of these files are GitLab's templates, whose jobs need none of a project's caches."""
        return not self.is_part and all(
            include.is_component or include.keyword == "template" for include in self.foreign
        )


def _merged(maps: Iterable[Mapping[_Part, _Whole]]) -> Mapping[_Part, _Whole]:
    merged: dict[_Part, _Whole] = {}
    for each in maps:
        merged.update(each)
    return merged
