"""A `.gitlab-ci.yml` as a tree whose nodes know their position in the text, and edits to that text.

This module parses YAML 1.1, as GitLab does, but never writes it: an edit cuts a slot (an entry of a mapping or an item
of a sequence) out of the text, or replaces the value of a scalar. Every other character stays the same.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

import yaml

from builder.errors import BuilderError, GitLabFileError
from builder.gitlab.adopt.diff import Cut, apply, patch
from builder.gitlab.adopt.node import Alias, Collection, Node, Scalar, Slot, walk
from builder.parse import read_bytes

DEEPEST: Final = 100  # levels of nesting; GitLab's own limit
_FAST_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # PyYAML may have been built without libyaml
_REST_OF_LINE: Final = re.compile(r"[ \t]*(#[^\n]*)?\r?(\n|\Z)")
_REST_AFTER_COMMA: Final = re.compile(r"[ \t]*,?[ \t]*(#[^\n]*)?\r?(\n|\Z)")
_BLANK_LINE: Final = re.compile(r"[ \t]*\r?\n")
_PROPERTIES: Final = re.compile(r"(?:[&!]\S*\s+)*")


@dataclass(frozen=True, kw_only=True)
class Edits:
    """Slots to remove, scalars with their new values, and images that jobs get as their first entry."""

    removed: Set[Slot]
    replaced: Mapping[Scalar, str]
    images: Mapping[Collection, Scalar] = field(default_factory=dict)

    def within(self, file: GitLabFile) -> Edits:
        """Those in one of several files."""
        return Edits(
            removed={slot for slot in self.removed if slot in file.owners},
            replaced={scalar: value for scalar, value in self.replaced.items() if scalar in file.holders},
            images={job: image for job, image in self.images.items() if job in file.holders},
        )


@dataclass(frozen=True, kw_only=True)
class GitLabFile:
    """A parsed file: its text, its root mapping, and the parent of each slot (`owners`) and node (`holders`)."""

    source: str
    text: str
    root: Collection
    owners: Mapping[Slot, Collection]
    holders: Mapping[Node, Slot]

    def line(self, index: int) -> int:
        """The line of an index into the text, counted from 1."""
        return bisect_right(self._lines, index)

    @property
    def line_end(self) -> str:
        """What ends its lines."""
        return "\r\n" if "\r\n" in self.text else "\n"

    @cached_property
    def _lines(self) -> list[int]:
        """Where each line begins."""
        return [0, *(match.end() for match in re.finditer("\n", self.text))]

    def is_replaceable(self, scalar: Scalar) -> bool:
        """Whether its text equals its value: on one line, without escapes."""
        return self.text[scalar.body : scalar.end] == f"{scalar.style}{scalar.value}{scalar.style}"

    def span(self, slot: Slot, removed: Set[Slot]) -> tuple[int, int] | None:
        """The text to cut out for a slot: whole lines if it has them to itself; None if it cannot be cut out."""
        owner = self.owners[slot]
        begin = self.text.rfind("\n", 0, slot.start) + 1
        lead = self.text[begin : slot.start]
        rest = (_REST_AFTER_COMMA if owner.is_flow else _REST_OF_LINE).match(self.text, slot.end)
        dash = r"[ \t]*" if owner.is_mapping or owner.is_flow else r"[ \t]*-[ \t]+"
        if rest and re.fullmatch(dash, lead):
            return begin, rest.end()
        return self._span_in_brackets(slot, owner, removed) if owner.is_flow else None

    def _span_in_brackets(self, slot: Slot, owner: Collection, removed: Set[Slot]) -> tuple[int, int] | None:
        position = owner.slots.index(slot)
        kept_before = [other for other in owner.slots[:position] if other not in removed]
        if position + 1 < len(owner.slots):
            start, end = slot.start, owner.slots[position + 1].start
        else:
            start, end = kept_before[-1].end if kept_before else slot.start, slot.end
        between = self.text[start:end]
        return None if "#" in between or "\n" in between else (start, end)

    def edit(self, edits: Edits) -> EditedFile:
        """Make the edits; raise BuilderError if the new text does not parse to the intended tree."""
        spans = [span for slot in edits.removed if (span := self.span(slot, edits.removed))]
        cuts = _merged(spans, self.text)
        begins = [cut.start for cut in cuts]
        for scalar, value in edits.replaced.items():
            before = bisect_right(begins, scalar.start) - 1
            if before < 0 or cuts[before].end <= scalar.start:
                cuts.append(Cut(start=scalar.body, end=scalar.end, text=f"{scalar.style}{value}{scalar.style}"))
        cuts += [self._image_line(job, image) for job, image in edits.images.items()]
        edited = EditedFile(file=self, cuts=tuple(cuts))
        intended = _plain(self.root, edits)
        again = parse_gitlab_file(edited.text, source=self.source) if cuts else self
        if _plain(again.root, Edits(removed=frozenset(), replaced={})) != intended:
            raise BuilderError(
                f"{self.source}: the edited file would not have the intended content",
                hint="this is a bug in builder; please report it",
            )
        return edited

    def _image_line(self, job: Collection, image: Scalar) -> Cut:
        """The line that gives a job an image, above its first entry."""
        begin = self.text.rfind("\n", 0, job.slots[0].start) + 1
        value = f"{image.style}{image.value}{image.style}"
        return Cut(start=begin, end=begin, text=f"{self.text[begin : job.slots[0].start]}image: {value}{self.line_end}")


@dataclass(frozen=True, kw_only=True)
class EditedFile:
    """A file and what to cut out of it."""

    file: GitLabFile
    cuts: tuple[Cut, ...]

    @cached_property
    def text(self) -> str:
        """The new text."""
        return apply(self.file.text, self.cuts)

    def diff(self, name: str) -> str:
        """The edits as a unified diff of a file with this name; '' if there are none."""
        return patch(name, self.file.text, self.cuts)


def _merged(spans: list[tuple[int, int]], text: str) -> list[Cut]:
    """The spans without overlaps; a span between two blank lines includes one of them."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and not text[merged[-1][1] : start].strip():
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    wide = (_with_blank_line(start, end, text) for start, end in merged)
    return [Cut(start=start, end=end, text="") for start, end in wide]


def _with_blank_line(start: int, end: int, text: str) -> tuple[int, int]:
    whole_lines = (start == 0 or text[start - 1] == "\n") and (end == len(text) or text[end - 1] == "\n")
    above = text.rfind("\n", 0, max(start - 1, 0)) + 1
    blank_before = start > 0 and not text[above:start].strip()
    blank_after = _BLANK_LINE.match(text, end)
    if whole_lines and blank_after and (blank_before or start == 0):
        return start, blank_after.end()
    if whole_lines and blank_before and end == len(text):
        return above, end
    return start, end


def _plain(node: Node, edits: Edits) -> object:
    """The content of a node after the edits, for comparison: equal content gives equal values."""
    if isinstance(node, Alias):
        return "*", node.name
    if isinstance(node, Scalar):
        return node.tag, node.anchor, bool(node.style), edits.replaced.get(node, node.value)
    slots = [slot for slot in node.slots if slot not in edits.removed]
    content = tuple((slot.key and _plain(slot.key, edits), _plain(slot.value, edits)) for slot in slots)
    if image := edits.images.get(node):
        content = (((None, None, False, "image"), (None, None, bool(image.style), image.value)), *content)
    return node.tag, node.anchor, node.is_mapping, content


def read_gitlab_file(path: Path, source: str) -> GitLabFile:
    """Read and parse a file, which messages call `source`; raise a GitLabFileError with the line number."""
    try:
        content = read_bytes(path)
    except OSError as error:
        raise GitLabFileError(
            f"cannot read {source}: {error.strerror}", hint="name the file: builder ci adopt FILE"
        ) from error
    try:
        return parse_gitlab_file(content.decode("utf-8"), source=source)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise GitLabFileError(f"{source}:{line}: not UTF-8 text (byte {error.start})") from error


def parse_gitlab_file(text: str, *, source: str) -> GitLabFile:
    """Parse the text of a file, skipping a `spec:` header; raise a GitLabFileError with the line number."""
    try:
        roots = _documents(text, source)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = text.count("\n", 0, mark.index) + 1 if mark else 1
        hint = "indent YAML with spaces, not tabs" if "'\\t'" in str(error.problem) else ""
        raise GitLabFileError(f"{source}:{line}: not YAML: {error.problem or error.context}", hint=hint) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise GitLabFileError(f"{source}:{line}: not YAML: invalid character") from error
    root = _content(roots, text, source)
    owners: dict[Slot, Collection] = {}
    holders: dict[Node, Slot] = {}
    for collection in walk(root):
        for slot in collection.slots:
            owners[slot] = collection
            holders[slot.value] = slot
    return GitLabFile(source=source, text=text, root=root, owners=owners, holders=holders)


def _documents(text: str, source: str) -> list[Node]:
    """The documents by libyaml, which is fast; or by Python, whose errors are clear."""
    try:
        return list(_Builder(text, source, _FAST_LOADER).documents())
    except yaml.YAMLError:
        return list(_Builder(text, source, yaml.SafeLoader).documents())


def _content(roots: list[Node], text: str, source: str) -> Collection:
    """The document with the jobs: the only one, or the one after a `spec:` header."""
    if len(roots) > 1 and isinstance(roots[0], Collection) and [slot.name for slot in roots[0].slots] == ["spec"]:
        roots = roots[1:]
    if not roots:
        raise GitLabFileError(f"{source}:1: empty; it contains no jobs")
    line = text.count("\n", 0, roots[-1].start) + 1
    if len(roots) > 1:
        raise GitLabFileError(
            f"{source}:{line}: unexpected second document",
            hint="only a `spec:` header may precede the document with the jobs",
        )
    if not isinstance(roots[0], Collection) or not roots[0].is_mapping:
        raise GitLabFileError(f"{source}:{line}: not a mapping of jobs", hint="is this a .gitlab-ci.yml?")
    return roots[0]


def _span(event: yaml.Event) -> tuple[int, int]:
    assert event.start_mark and event.end_mark  # noqa: PT018, S101 - every event has them
    return event.start_mark.index, event.end_mark.index


class _Builder:
    """Builds nodes from PyYAML's events. Anchors are known only after their node ends, so no node contains itself."""

    def __init__(self, text: str, source: str, loader: type[yaml.SafeLoader]) -> None:
        self._text = text
        self._source = source
        self._events = yaml.parse(text, Loader=loader)
        self._anchors: dict[str, Scalar | Collection] = {}

    def documents(self) -> Iterator[Node]:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._anchors = {}
                yield self._node(next(self._events), depth=0)

    def _node(self, event: yaml.Event, depth: int) -> Node:
        start, end = _span(event)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise self._error(start, f"*{event.anchor} has no anchor &{event.anchor} before it")
            return Alias(start=start, end=end, name=event.anchor, target=self._anchors[event.anchor])
        if depth > DEEPEST:
            raise self._error(start, f"nested deeper than {DEEPEST} levels")
        node = self._scalar(event) if isinstance(event, yaml.ScalarEvent) else self._collection(event, depth)
        if node.anchor:
            self._anchors[node.anchor] = node
        return node

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        start, end = _span(event)
        properties = _PROPERTIES.match(self._text, start, end) if event.anchor or event.tag else None
        return Scalar(
            start=start,
            end=start + len(self._text[start:end].rstrip()),
            body=properties.end() if properties else start,
            value=event.value,
            style=event.style or "",
            tag=event.tag,
            anchor=event.anchor,
        )

    def _collection(self, event: yaml.Event, depth: int) -> Collection:
        assert isinstance(event, yaml.CollectionStartEvent)  # noqa: S101 - the only other kind of node
        slots: list[Slot] = []
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        while not isinstance(inner := next(self._events), yaml.CollectionEndEvent):
            key = self._node(inner, depth + 1) if is_mapping else None
            slots.append(Slot(key=key, value=self._node(next(self._events) if is_mapping else inner, depth + 1)))
        is_flow = bool(event.flow_style)
        # For the parser, a block ends where the next token begins.
        start = _span(event)[0]
        end = _span(inner)[1] if is_flow else slots[-1].end if slots else start
        return Collection(
            start=start, end=end, slots=tuple(slots), is_mapping=is_mapping, is_flow=is_flow,
            tag=event.tag, anchor=event.anchor,
        )  # fmt: skip

    def _error(self, index: int, message: str) -> GitLabFileError:
        return GitLabFileError(f"{self._source}:{self._text.count(chr(10), 0, index) + 1}: {message}")
