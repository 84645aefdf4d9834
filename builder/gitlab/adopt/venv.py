"""Environments that jobs create themselves and that would hide the baked one, and work that the image has done."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Final

from builder.errors import listed
from builder.gitlab.adopt.draft import Command, Draft, variable_values
from builder.gitlab.adopt.job import Job, Line
from builder.gitlab.adopt.node import Scalar, Slot
from builder.gitlab.adopt.pipeline import Place
from builder.gitlab.adopt.program import uses_below
from builder.gitlab.adopt.removal import parts_of
from builder.gitlab.adopt.script import VENV_EFFECTS, EffectKind, in_project, is_uv_installer

# The usual names of a project's environment; one with another name serves another purpose.
_PROJECT_VENVS: Final = frozenset({"venv", ".venv", "env", ".env", "virtualenv", ".virtualenv"})
_UV: Final = re.compile(r"\buv (?:pip|sync|venv|add|run)\b")
_REQUIREMENTS: Final = re.compile(r"\bpip3? install\b.*\s(?:-r|--requirement)\b")
_REASONS: Final[Mapping[EffectKind, str]] = {
    "create-venv": "a second environment hides the baked one",
    "activate": "a second environment hides the baked one",
    "run-program": "the baked environment comes first on PATH",
    "use-path": "the baked environment comes first on PATH",
    "deactivate": "no environment is active",
    "install-virtualenv": "the image already has an environment",
    "install-uv": "the image already has uv",
    "add-uv-to-path": "the image already has uv",
    "prune-cache": "it would empty the warm cache",
    "install-python": "the image already has Python",
    "set-variable": "the image already sets it",
}


def failing_lines(draft: Draft, job: Job) -> Iterator[tuple[Place, str]]:
    """The lines of a job that would fail on a baked image and cannot be edited: where, and what to do."""
    for command in draft.commands_of[job]:
        if command.effect.kind not in VENV_EFFECTS or command.is_editable:
            continue
        if command.effect.kind == "create-venv" and command.effect.variable:
            yield command.place, f"`{command.text}` would replace the baked environment; remove it"
        elif command.effect.venv not in draft.created_venvs:
            missing = f"`{command.text}` needs {command.effect.venv}, which does not exist in a baked image"
            yield command.place, f"{missing}; {_advice(command)}"
        elif job.name in draft.refused:
            yield command.place, f"{_advice(command)}, because {_REASONS[command.effect.kind]}"
    for line in job.lines:
        if job.name in draft.refused and (match := _UV.search(line.scalar.value)):
            conflict = "uses the baked environment, but the job has its own, which cannot be removed automatically"
            yield draft.pipeline.place(line.scalar), f"`{match[0]}` {conflict}"
        if re.search(r"\bpip3? install\b.*\s--user\b", line.scalar.value):
            yield (
                draft.pipeline.place(line.scalar),
                "`pip install --user` fails in a virtual environment; remove --user",
            )


def conflicting_jobs(draft: Draft) -> set[str]:
    """The names of baked jobs that keep their own environment but call uv, which installs into the baked one."""
    return {job.name for job in draft.with_venv if any(_UV.search(line.scalar.value) for line in job.lines)}


def _advice(command: Command) -> str:
    if command.effect.kind == "run-program":
        return f"write `{command.text.replace(command.effect.prefix, '', 1)}`"
    return f"change `{command.text}`"


def drop_environments(draft: Draft) -> None:
    """Remove the lines that create, enter and leave the jobs' own environments: all lines of one, or none."""
    for venv in sorted(draft.venvs):
        own = [
            command for command in draft.commands if command.effect.kind in VENV_EFFECTS and command.effect.venv == venv
        ]
        users = {command.job for command in own}
        if venv.rpartition("/")[2] not in _PROJECT_VENVS and not _has_requirements(users, own):
            draft.with_venv |= _keep_special_purpose(draft, venv, own)
            continue
        related = [
            command
            for command in draft.commands
            if command.job in users and command.effect.kind in {"deactivate", "install-virtualenv"}
        ]
        commands = [*own, *related]
        if users & draft.baked and (_is_kept(draft, venv, commands) or not _remove_commands(draft, venv, commands)):
            draft.with_venv |= users & draft.baked


def _has_requirements(users: Set[Job], commands: Sequence[Command]) -> bool:
    """Whether all jobs that enter an environment install a requirements file into it, whatever its name says."""
    entering = {command.job for command in commands if command.effect.kind == "activate"}
    texts = {job: [line.scalar.value for line in job.lines] for job in users}
    return users == entering and all(any(map(_REQUIREMENTS.search, texts[job])) for job in users)


def _keep_special_purpose(draft: Draft, venv: str, commands: Sequence[Command]) -> set[Job]:
    """The baked jobs that enter an environment whose name says that it is not the project's; add a remark."""
    for command in commands:
        if command.job in draft.baked and command.effect.kind == "create-venv":
            reason = "its name suggests a separate environment"
            draft.remark(
                command.place, command.job, f"left alone, with all lines for {venv}: {reason}", kind="left-alone"
            )
            draft.kept_venvs.add(venv)
    return {command.job for command in commands if command.job in draft.baked and command.effect.kind == "activate"}


def _is_kept(draft: Draft, venv: str, commands: Sequence[Command]) -> bool:
    """Whether something that cannot be edited needs the environment; add remarks about it."""
    fixed = [command for command in commands if command.job in draft.baked and not command.is_editable]
    for command in fixed:
        advice = f"{_advice(command)}, because {_REASONS[command.effect.kind]}"
        draft.remark(command.place, command.job, f"left alone, with all lines for {venv}: {advice}", kind="left-alone")
    mentions = list(_path_mentions(draft, venv, commands))
    for job, line in mentions:
        draft.remark(
            line.scalar, job, f"left alone, with all lines for {venv}: it uses a path inside it", kind="left-alone"
        )
    is_shared = _is_shared(commands, draft.baked)
    if is_shared:
        others = listed(sorted({command.job.name for command in commands if command.job not in draft.baked}))
        reason = f"jobs that do not run on a baked image need them too ({others})"
        draft.remark(commands[0].place, commands[0].job, f"the lines for {venv} stay: {reason}", kind="stays")
    return bool(fixed or mentions or is_shared)


def _is_shared(commands: Sequence[Command], baked: Set[Job]) -> bool:
    """Whether jobs on other images have the same lines, or create the environment for jobs that only enter it."""
    baked_lines = {command.line.scalar for command in commands if command.job in baked}
    other_lines = {command.line.scalar for command in commands if command.job not in baked}
    creators = {command.job for command in commands if command.effect.kind == "create-venv"}
    users = {command.job for command in commands}
    return bool(other_lines & baked_lines) or (bool(creators - baked) and not users & baked <= creators)


def _path_mentions(draft: Draft, venv: str, commands: Sequence[Command]) -> Iterator[tuple[Job, Line]]:
    """Lines of baked jobs that use a path in an environment other than to start a program, or whose scripts do."""
    known = {command.line.scalar for command in commands}
    pattern = re.compile(rf"(?<![\w.-]){re.escape(venv)}/(?:bin|lib|Scripts)\b")
    for job in draft.jobs:
        for line in job.lines if job in draft.baked else ():
            text = "" if line.scalar in known else line.scalar.value
            inner = [use.command for use in uses_below(text, draft.pipeline.folder) if use.via]
            if any(pattern.search(in_project(each, variable_values(job))) for each in (text, *inner)):
                yield job, line


def _remove_commands(draft: Draft, venv: str, commands: Sequence[Command]) -> bool:
    """Remove the lines, and shorten those that start programs by path; return False if that is impossible."""
    commands = [command for command in commands if command.job in draft.baked]
    removable = {
        command.line.slot: command
        for command in commands
        if command.line.slot and command.effect.kind != "run-program" and not command.rest
    }
    while obstacle := draft.remove(set(removable)):
        # A script needs a line: creating an environment does no harm, but entering one that is missing would fail.
        script = set(parts_of(obstacle.slot))
        harmless = [
            slot
            for slot, command in removable.items()
            if slot in script and command.effect.kind in {"create-venv", "install-virtualenv"}
        ]
        if not harmless:
            draft.remark(obstacle.slot, None, f"the lines for {venv} stay: {obstacle.reason}", kind="stays")
            return False
        job = removable.pop(harmless[0]).job
        draft.remark(harmless[0], job, f"left alone: {obstacle.reason}; you can delete the job", kind="left-alone")
    for command in commands:
        if command.rest:
            draft.replaced[command.line.scalar] = command.rest
        elif command.effect.kind == "run-program":
            scalar = command.line.scalar
            draft.replaced[scalar] = scalar.value.replace(command.effect.prefix, "", 1)
    return True


def drop_lines(draft: Draft) -> None:
    """Remove the lines that repeat the image's work or undo it, such as uv's installation or `uv cache prune`."""
    users: dict[Scalar, list[Job]] = {}
    for job in draft.jobs:
        for line in job.lines:
            users.setdefault(line.scalar, []).append(job)
    proposals: list[tuple[Set[Slot], Command]] = []
    for command in draft.commands:
        kind = command.effect.kind
        if command.job not in draft.baked or kind in {*VENV_EFFECTS, "deactivate"} or _is_needed(draft, command):
            continue
        blocked = draft.reason_to_keep(job for job in users[command.line.scalar] if job not in draft.with_venv)
        together = [command, *_sourcing(draft, command)]
        slots = {each.line.slot for each in together if each.is_editable and each.line.slot}
        if len(slots) < len(together):
            draft.remark(command.place, command.job, f"left alone: {_by_hand(command)}", kind="left-alone")
        elif blocked:
            draft.remark(command.place, command.job, f"left alone: {blocked} and has this line too", kind="left-alone")
        else:
            proposals.append((slots, command))
    for command, reason in draft.remove_each(proposals):
        draft.remark(command.place, command.job, f"left alone: {reason}; {_by_hand(command)}", kind="left-alone")


def _sourcing(draft: Draft, command: Command) -> list[Command]:
    """The lines of the same job that source a file that only this command, uv's installer, writes."""
    if command.effect.kind != "install-uv" or not is_uv_installer(command.text):
        return []
    others = draft.commands_of[command.job]
    return [each for each in others if each.effect.kind == "add-uv-to-path" and not _is_needed(draft, each)]


def _by_hand(command: Command) -> str:
    return f"remove `{command.text}` by hand, because {_REASONS[command.effect.kind]}"


def _is_needed(draft: Draft, command: Command) -> bool:
    """Whether a line is already removed, or the job needs virtualenv, or the installer's PATH, for something else."""
    if command.effect.kind == "install-virtualenv" and command.job in draft.with_venv:
        return True
    has_rust = any("rustup" in line.scalar.value for line in command.job.lines)
    return command.line.slot in draft.removal.slots or (command.effect.kind == "add-uv-to-path" and has_rust)
