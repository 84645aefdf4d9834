"""Environments that jobs make for themselves, which would hide the baked one, and work that the image has done."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Final

from builder.errors import listed
from builder.gitlab.adopt.draft import Draft, Use, environment
from builder.gitlab.adopt.file import Scalar, Slot
from builder.gitlab.adopt.job import Job, Line
from builder.gitlab.adopt.removal import inside
from builder.gitlab.adopt.script import VENV_DEEDS, in_project

_USUAL: Final = frozenset({"venv", ".venv", "env", ".env", "virtualenv", ".virtualenv"})  # of a project's environment
_UV: Final = re.compile(r"\buv (?:pip|sync|venv|add|run)\b")
_WHY: Final[Mapping[str, str]] = {
    "creates": "an environment of its own hides the baked one",
    "activates": "an environment of its own hides the baked one",
    "runs": "the baked environment comes first in PATH",
    "uses": "the baked environment comes first in PATH",
    "deactivates": "there is no environment to leave",
    "tool": "the image has an environment",
    "uv": "uv is in the image",
    "uv-path": "uv is in the image",
    "prunes": "it would empty the warm cache",
    "python": "Python is in the image",
    "sets": "the image sets it",
}


def faults(draft: Draft, job: Job) -> Iterator[tuple[int, str]]:
    """What of a job would fail on a baked image and cannot be edited: where, and what to do."""
    created = {use.deed.venv for use in draft.uses if use.deed.kind == "creates"}
    for use in (
        each for each in draft.uses if each.job is job and each.deed.kind in VENV_DEEDS and not each.is_editable
    ):
        if use.deed.kind == "creates" and use.deed.variable:
            yield use.at, f"`{use.text}` would replace the baked environment; take it out"
        elif use.deed.venv not in created:
            yield use.at, f"`{use.text}` names {use.deed.venv}, which is not there on a baked image; {_advice(use)}"
        elif job.name in draft.refused:
            yield use.at, f"{_advice(use)}; {_WHY[use.deed.kind]}"
    for line in job.lines:
        if job.name in draft.refused and (found := _UV.search(line.scalar.value)):
            why = "works on the baked environment, and the job has one of its own that cannot be taken out"
            yield line.scalar.start, f"`{found[0]}` {why}"
        if re.search(r"\bpip3? install\b.*\s--user\b", line.scalar.value):
            yield line.scalar.start, "`pip install --user` fails in an environment; take --user out"


def broken(draft: Draft) -> set[str]:
    """The names of baked jobs that keep an environment of their own and fill it with uv, which fills the baked one."""
    return {job.name for job in draft.with_venv if any(_UV.search(line.scalar.value) for line in job.lines)}


def _advice(use: Use) -> str:
    return f"write `{use.text.replace(use.deed.prefix, '', 1)}`" if use.deed.kind == "runs" else f"mend `{use.text}`"


def drop_environments(draft: Draft) -> None:
    """Take out the lines that make, enter and leave environments of the jobs' own: all lines of one, or none."""
    for venv in sorted(draft.venvs):
        own = [use for use in draft.uses if use.deed.kind in VENV_DEEDS and use.deed.venv == venv]
        users = {use.job for use in own}
        if venv.rpartition("/")[2] not in _USUAL:
            draft.with_venv |= _beside(draft, venv, own)
            continue
        also = [use for use in draft.uses if use.job in users and use.deed.kind in {"deactivates", "tool"}]
        if users & draft.baked and (_is_kept(draft, venv, [*own, *also]) or not _cut(draft, venv, [*own, *also])):
            draft.with_venv |= users & draft.baked


def _beside(draft: Draft, venv: str, uses: Sequence[Use]) -> set[Job]:
    """The baked jobs that enter an environment which, by its name, is meant to be apart from that of the project."""
    makers = [use for use in uses if use.job in draft.baked and use.deed.kind == "creates"]
    for use in makers:
        draft.say(use.at, use.job, f"left alone, with all lines of {venv}: by its name it is an environment apart")
    return {use.job for use in uses if use.job in draft.baked and use.deed.kind == "activates"}


def _is_kept(draft: Draft, venv: str, uses: Sequence[Use]) -> bool:
    """Whether something needs the environment that cannot be edited; says what."""
    stuck = [use for use in uses if use.job in draft.baked and not use.is_editable]
    for use in stuck:
        draft.say(use.at, use.job, f"left alone, with all lines of {venv}: {_advice(use)}; {_WHY[use.deed.kind]}")
    named = list(_mentions(draft, venv, uses))
    for job, line in named:
        draft.say(line.scalar.start, job, f"left alone, with all lines of {venv}: it names a path in there")
    users = {use.job for use in uses}
    is_shared = _is_shared(uses, draft.baked)
    if is_shared:
        others = listed(sorted(job.name for job in users - draft.baked))
        why = f"{others}, which needs them too, does not run on a baked image"
        draft.say(uses[0].at, uses[0].job, f"the lines of {venv} stay: {why}")
    return bool(stuck or named or is_shared)


def _is_shared(uses: Sequence[Use], baked: Set[Job]) -> bool:
    """Whether jobs on other images have the same lines, or make the environment for jobs that only enter it."""
    elsewhere = {use.line.scalar for use in uses if use.job not in baked}
    here = {use.line.scalar for use in uses if use.job in baked}
    makers = {use.job for use in uses if use.deed.kind == "creates"}
    return bool(elsewhere & here) or (bool(makers - baked) and not {use.job for use in uses} & baked <= makers)


def _mentions(draft: Draft, venv: str, uses: Sequence[Use]) -> Iterator[tuple[Job, Line]]:
    """Lines of baked jobs that name a path in an environment otherwise than to start a program."""
    known = {use.line.scalar for use in uses}
    pattern = re.compile(rf"(?<![\w.-]){re.escape(venv)}/(?:bin|lib|Scripts)\b")
    for job in draft.jobs:
        for line in job.lines if job in draft.baked else ():
            if line.scalar not in known and pattern.search(in_project(line.scalar.value, environment(job))):
                yield job, line


def _cut(draft: Draft, venv: str, uses: Sequence[Use]) -> bool:
    """Take the lines out that can be, and shorten those that start programs by path; False where that cannot be."""
    uses = [use for use in uses if use.job in draft.baked]
    cut = {use.line.slot: use for use in uses if use.line.slot and use.deed.kind != "runs"}
    while obstacle := draft.remove(set(cut)):
        # A script needs a line: one that makes an environment does no harm, one that enters it would fail.
        script = inside({obstacle.slot})
        harmless = [slot for slot, use in cut.items() if slot in script and use.deed.kind in {"creates", "tool"}]
        if not harmless:
            draft.say(obstacle.slot.start, None, f"the lines of {venv} stay: {obstacle.why}")
            return False
        draft.say(harmless[0].start, cut.pop(harmless[0]).job, f"left alone: {obstacle.why}; the job may go")
    for use in uses:
        if use.deed.kind == "runs":
            draft.replaced[use.line.scalar] = use.line.scalar.value.replace(use.deed.prefix, "", 1)
    return True


def drop_lines(draft: Draft) -> None:
    """Take out the lines that do what the image has done: uv's installation, pruning of the cache and the like."""
    users: dict[Scalar, list[Job]] = {}
    for job in draft.jobs:
        for line in job.lines:
            users.setdefault(line.scalar, []).append(job)
    proposals: list[tuple[Set[Slot], Use]] = []
    for use in draft.uses:
        if use.job not in draft.baked or use.deed.kind in {*VENV_DEEDS, "deactivates"} or _is_needed(draft, use):
            continue
        blocked = draft.blocked(job for job in users[use.line.scalar] if job not in draft.with_venv)
        if not use.is_editable or use.line.slot is None:
            draft.say(use.at, use.job, f"left alone: take `{use.text}` out: {_WHY[use.deed.kind]}")
        elif blocked:
            draft.say(use.at, use.job, f"left alone: {blocked}, and has this line too")
        else:
            proposals.append(({use.line.slot}, use))
    for use, why in draft.remove_each(proposals):
        draft.say(use.at, use.job, f"left alone, as {why}; take `{use.text}` out: {_WHY[use.deed.kind]}")


def _is_needed(draft: Draft, use: Use) -> bool:
    """Whether a line is gone already, or virtualenv, or the path that an installer sets, has another use in the job."""
    if use.deed.kind == "tool" and use.job in draft.with_venv:
        return True
    has_rust = any("rustup" in line.scalar.value for line in use.job.lines)
    return use.line.slot in draft.removed or (use.deed.kind == "uv-path" and has_rust)
