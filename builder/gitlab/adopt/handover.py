"""Environments that one job fills and another only enters: on a baked image, the other job would miss what is extra.

Nothing is missing if the filling job installs what is locked and no more.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from builder.gitlab.adopt.job import Job
from builder.gitlab.adopt.program import read_inside, uses_below, uses_in

_FILLS: Final = re.compile(
    r"(?:python[\d.]* -m |\S*/bin/)?pip3? install\b|uv (?:sync|run|pip install|pip sync|add)\b|python[\d.]* setup\.py\b"
    r"|(?:poetry|pdm|pipenv) (?:install|sync|update)\b"
)
_OWN_PROJECT: Final = re.compile(r"(?:poetry|pdm) (?:install|sync|update)\b(?!.*--(?:no-root|no-self)\b)")
_UV_PROJECT: Final = re.compile(r"uv (?:sync|run)\b(?!.*--no-install-project\b)")
_TOOLS: Final = r"pip|setuptools|wheel|uv|virtualenv|poetry\S*|pdm|pipenv"  # that a job needs only to install others
_LOCKED: Final = re.compile(
    r"(?:python[\d.]* -m |\S*/bin/)?(?:uv )?pip3? (?:install|sync)(?=\s)"
    rf"(?:\s+(?:-[rc]\s*\S+|--requirement[= ]\S+|-\S+|[\w./-]+\.txt|{_TOOLS}))*\s*"
    r"|uv (?:sync|run)\b.*|(?:poetry|pdm|pipenv) (?:install|sync)(?:\s+-.*)?"
)
_ENTERS: Final = re.compile(r"(?:poetry|pdm|pipenv) run\b")


def handed_over(jobs: Mapping[Job, set[str]], folder: Path | None) -> Mapping[Job, str]:
    """The jobs that share an environment with more in it than the lock has, each with the reason.

    `jobs` has the environments that each job creates, enters, or uses by path.
    """
    fills = {job: list(_fills(job, folder)) for job in jobs}
    users: defaultdict[str, dict[Job, None]] = defaultdict(dict)
    for job, venvs in jobs.items():
        for venv in venvs | _managed(job):
            users[venv][job] = None
    reasons: dict[Job, str] = {}
    for venv, sharing in users.items():
        extras = ((maker, command) for maker in sharing for command in fills[maker] if _is_extra(command, folder))
        idle = next((job for job in sharing if not fills[job]), None)
        if idle and (extra := next(extras, None)):
            maker, command = extra
            reason = f"{idle.name} uses {venv}, which {maker.name} fills by `{command}`; run that in {idle.name} too"
            reasons.update(dict.fromkeys(sharing, reason))
    return reasons


def _fills(job: Job, folder: Path | None) -> Iterator[str]:
    for line in job.lines:
        for use in uses_below(line.scalar.value, folder):
            if _FILLS.match(use.command):
                yield use.command


def _managed(job: Job) -> set[str]:
    """The environment of Poetry and its kind, which are taken to keep it in the project."""
    commands = [use.command for line in job.lines for use in uses_in(line.scalar.value)]
    has_manager = any(_ENTERS.match(command) or _OWN_PROJECT.match(command) for command in commands)
    return {".venv"} if has_manager or any(re.match(r"uv sync\b", command) for command in commands) else set()


def _is_extra(command: str, folder: Path | None) -> bool:
    """Whether a command installs more than what is locked: the project itself, or packages by name."""
    if _OWN_PROJECT.match(command):
        return True
    if _UV_PROJECT.match(command):
        return folder is not None and "[build-system]" in read_inside(folder / "pyproject.toml", folder)
    return not _LOCKED.fullmatch(command)
