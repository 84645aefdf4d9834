"""What the edits leave behind for the user to look at: comments, duplicate keys, jobs with nothing left to do."""

from __future__ import annotations

from builder.gitlab.adopt.draft import Draft
from builder.gitlab.adopt.node import Slot
from builder.gitlab.adopt.script import ONLY_INSTALLS


def remark_on_leftovers(draft: Draft) -> None:
    """Point out comments on removed lines, jobs that have become useless, and keys of which only the last counts."""
    for slot in draft.removal.outermost(draft.removal.slots):
        _remark_on_comment(draft, slot)
    for job in draft.baked:
        left = [line for line in job.lines if line.scalar not in draft.removal.gone]
        if left and all(ONLY_INSTALLS.fullmatch(line.scalar.value.strip()) for line in left):
            draft.remark(job.slot, job, "it only installs what the image has; you can delete it and any `needs` on it")
    for mapping in draft.pipeline.collections():
        last = {slot.name: slot for slot in mapping.slots}
        for slot in mapping.slots:
            if mapping.is_mapping and slot.name != "<<" and slot is not (duplicate := last[slot.name]):
                line = draft.pipeline.place(duplicate).line
                draft.remark(slot, None, f"line {line} defines {slot.name} again, and GitLab uses that one")


def _remark_on_comment(draft: Draft, slot: Slot) -> None:
    text = draft.pipeline.file_of(slot).text
    above = text.rfind("\n", 0, slot.start)
    comment = text.rfind("\n", 0, max(above, 0)) + 1
    if above > 0 and text[comment:above].lstrip().startswith("#"):
        place = draft.pipeline.place(slot, comment)
        draft.remark(place, None, "this comment stays, but the lines below it are removed")
