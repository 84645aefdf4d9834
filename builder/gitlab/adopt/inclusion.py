"""Add the component to the `include:` of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from builder.gitlab.adopt.diff import Cut
from builder.gitlab.adopt.file import EditedFile, GitLabFile
from builder.gitlab.adopt.job import Job
from builder.gitlab.adopt.lock import find_project_lock
from builder.gitlab.adopt.node import Collection, Scalar, Slot
from builder.gitlab.adopt.pipeline import Pipeline, Place
from builder.gitlab.adopt.remark import Remark
from builder.gitlab.component import include_lines

_STAGES = (".pre", "build", "test", "deploy", ".post")  # GitLab's own


@dataclass(frozen=True, kw_only=True)
class Inclusion:
    """A file that includes the component, and what to do besides."""

    file: EditedFile
    remarks: tuple[Remark, ...]


def include_component(pipeline: Pipeline, edited: EditedFile, address: str, baked: Sequence[Job]) -> Inclusion:
    """Include the component at an address, or with '' the project's own copy, before the jobs on baked images."""
    file, remarks = edited.file, []
    inputs = {"stage": _stage(pipeline, baked)}
    if pipeline.folder:
        lock = find_project_lock(pipeline.folder)
        inputs["lock"] = "" if lock.path == "uv.lock" else lock.path
        if lock.command:
            remarks += [f"builder needs a lock: `{lock.command}`"]
        if lock.others:
            remarks += [f"{lock.path} is baked; a profile of the matrix can have {lock.others[0]}"]
    cut = _cut(file, include_lines(address, inputs))
    if cut is None:
        remarks += ["include the component by hand; make `include:` a list of which it is one item"]
    place = Place(source=file.source, line=1)
    said = tuple(Remark(kind="check", place=place, job="", text=text) for text in remarks)
    return Inclusion(file=replace(edited, cuts=(*edited.cuts, cut)) if cut else edited, remarks=said)


def _stage(pipeline: Pipeline, baked: Sequence[Job]) -> str:
    """The stage for the component if its default, `build`, does not come before those of the jobs."""
    own = next((slot.value for slot in pipeline.tops.get("stages", ())), None)
    slots = own.slots if isinstance(own, Collection) else ()
    names = [slot.value.value for slot in slots if isinstance(slot.value, Scalar)] or _STAGES
    stages: Mapping[str, int] = {name: position for position, name in enumerate(names)}
    first = min((stages.get(job.stage, 0) for job in baked), default=0)
    return "" if stages.get("build", first) < first else ".pre"


def _cut(file: GitLabFile, lines: Sequence[str]) -> Cut | None:
    """Where the item goes: at the end of the list, or in a new list before the first key; None if that is not clear."""
    slot = next((slot for slot in file.root.slots if slot.name == "include"), None)
    include = slot.value if slot else None
    if slot is None or include is None:
        start = _start_of_lines(file.text, file.root.start)
        block = ["include:", *_indented(lines, "  "), "", ""]
        return Cut(start=start, end=start, text=file.line_end.join(block))
    if isinstance(include, Scalar):
        return _cut_after_one(file, slot, lines)
    if not isinstance(include, Collection) or include.is_mapping or include.is_flow or not include.slots:
        return None
    last = include.slots[-1]
    begin = file.text.rfind("\n", 0, last.start) + 1
    end = file.text.find("\n", last.end) + 1
    if not end:
        return None
    indent = file.text[begin : last.start].partition("-")[0]
    return Cut(start=end, end=end, text=file.line_end.join([*_indented(lines, indent), ""]))


def _cut_after_one(file: GitLabFile, slot: Slot, lines: Sequence[str]) -> Cut | None:
    """Make a list of the only file that is included; None if it is not on the line of its key, or commented there."""
    text = file.text[slot.start : slot.end]
    key, _, value = text.partition(":")
    end = file.text.find("\n", slot.end) + 1
    if "\n" in text or not end or file.text[slot.end : end].strip() or not value.startswith(" "):
        return None
    block = [f"{key}:", f"  - {value.strip()}", *_indented(lines, "  "), ""]
    return Cut(start=slot.start, end=end, text=file.line_end.join(block))


def _indented(lines: Sequence[str], indent: str) -> list[str]:
    return [f"{indent}{line}" for line in lines]


def _start_of_lines(text: str, index: int) -> int:
    """The line of an index, or where the comment lines directly above it begin, unless they begin the file."""
    begin = start = text.rfind("\n", 0, index) + 1
    while start > 0:
        above = text.rfind("\n", 0, start - 1) + 1
        if not text[above:start].startswith("#"):
            return start
        start = above
    return begin
