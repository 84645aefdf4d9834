"""Remove variables that override those of the image, and those that nothing uses any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Final

from builder.gitlab.adopt.draft import Draft, variable_values
from builder.gitlab.adopt.job import Job, variables_in
from builder.gitlab.adopt.node import Scalar, Slot
from builder.gitlab.adopt.script import OVERRIDES, in_project, is_inside

_CACHES: Final = frozenset({"UV_CACHE_DIR", "PIP_CACHE_DIR"})
_Uses = Mapping[str, Sequence[tuple[Scalar, Slot]]]


def drop_variables(draft: Draft) -> None:
    """Remove variables, and then those that only the removed ones used."""
    users: dict[Slot, list[Job]] = {}
    for job in draft.jobs:
        for slot in job.variables.values():
            users.setdefault(slot, []).append(job)
    uses = draft.variable_uses()
    kept: dict[Slot, str] = {}
    candidates = list(users)
    while candidates:
        proposals: list[tuple[Set[Slot], Slot]] = []
        for slot in candidates:
            decision = _removal_decision(draft, slot, users[slot], uses)
            kept.pop(slot, None)
            if decision is True:
                proposals.append(({slot}, slot))
            elif decision:
                kept[slot] = decision
        kept.update(draft.remove_each(proposals))
        names = {name for _, slot in proposals for name in variables_in(_text(slot))}  # may be unused now
        candidates = [slot for slot in users if slot.name in names and slot not in draft.removal.gone]
    for slot, reason in kept.items():
        draft.remark(slot, None, f"{slot.name} stays: {reason}", kind="stays")


def _text(slot: Slot) -> str:
    return slot.value.value if isinstance(slot.value, Scalar) else ""


def _first_use(draft: Draft, name: str, uses: _Uses) -> Scalar | None:
    return next((scalar for scalar, slot in uses.get(name, ()) if slot not in draft.removal.gone), None)


def _removal_decision(draft: Draft, slot: Slot, users: Sequence[Job], uses: _Uses) -> bool | str:
    """Whether to remove a variable; a text says why it has to stay although it should go."""
    baked = [job for job in users if job in draft.baked]
    if not baked or slot in draft.removal.gone:
        return False
    use = _first_use(draft, slot.name, uses)
    if _is_overriding(slot, baked[0]):
        needing = [job for job in users if slot.name not in _CACHES or _is_stored(draft, job)]
        return f"{_line(draft, use, slot)} uses it" if use else draft.reason_to_keep(needing) or True
    if slot.name == "UV_PYTHON":
        return "it may be intended; without it, jobs use the Python of the image"
    if slot.name not in draft.dropped_variables - OVERRIDES or use:
        return False
    return not draft.pipeline.has_unknown_users or "nothing here uses it any more, but an included file might"


def _is_stored(draft: Draft, job: Job) -> bool:
    """Whether a job still has a cache or artifacts, without which its downloads end with it wherever they are."""
    return any(member not in draft.removal.gone for group in job.stores for member in group)


def _line(draft: Draft, use: Scalar, slot: Slot) -> str:
    place = draft.pipeline.place(use)
    return f"line {place.line}" if place.source == draft.pipeline.place(slot).source else f"{place.source}:{place.line}"


def _is_overriding(slot: Slot, job: Job) -> bool:
    """Whether a variable overrides one of the image, or configures a cache that is removed."""
    if slot.name in {"UV_CACHE_DIR", "UV_LINK_MODE", "UV_COMPILE_BYTECODE"}:
        return True
    path = in_project(variable_values(job).get(slot.name, ""), variable_values(job))
    if slot.name == "UV_PYTHON":
        return is_inside(path) and (path == ".venv" or "/" in path)
    return slot.name in OVERRIDES and is_inside(path)
