"""Programs that make environments of their own: which of them find the baked one instead, and which never would.

Poetry, PDM and Pipenv use the environment that is active, which in an image is the baked one. tox and nox install from
the image's warm cache once uv does it for them. Hatch and conda do not use what an image has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Final

from builder.gitlab.adopt.draft import Draft, variable_values
from builder.gitlab.adopt.job import Job, Line
from builder.gitlab.adopt.node import Scalar
from builder.gitlab.adopt.pipeline import Place
from builder.gitlab.adopt.program import Use, read_inside, uses_below, uses_in

_FAILING: Final[Mapping[str, str]] = {
    r"(?:conda|mamba|micromamba) (?:activate|create|env|install|run|init)\b": "conda makes environments of its own, "
    "and builder bakes one from a lock of Python packages; lock it with uv to move this job",
    r"hatch (?!--version\b|version\b)\S": "Hatch makes environments of its own and would not use the baked one; lock "
    "its dependencies with uv and call the tools themselves to move this job",
    r"rye (?!--version\b)\S": "Rye makes environments of its own and would not use the baked one; it is no longer "
    "developed, and uv reads the same pyproject.toml: `uv lock`",
    r"poetry (?:env use|env remove|shell)\b|pdm (?:use|venv)\b|pipenv --(?:python|three|rm)\b": "it selects another "
    "environment than the baked one; remove it",
}
_SYNCING: Final = re.compile(
    r"poetry (?:sync\b|install\b.*(?:--sync|--remove-untracked)\b)|pdm sync\b.*--clean\b|pipenv clean\b"
)
_CREATES: Final = re.compile(r"(?:python[\d.]* -m )?(?:venv|virtualenv)\b|uv venv\b")
_IGNORING: Final[Mapping[str, str]] = {"PIPENV_IGNORE_VIRTUALENVS": "pipenv", "PDM_IGNORE_ACTIVE_VENV": "pdm"}
_MANAGERS: Final[Mapping[str, str]] = {"poetry": "Poetry", "pdm": "PDM", "pipenv": "Pipenv"}
_EXPORTS: Final[Mapping[str, str]] = {
    "poetry": "poetry export --with dev -o requirements.txt",
    "pdm": "pdm export -o pylock.toml -f pylock",
    "pipenv": "pipenv requirements --dev --hash > requirements.txt",
}
_PIP_IN_SESSIONS: Final = re.compile(r"[\"']pip3?[\"']|\bpip3? |venv_backend|install_command|\bconda\b")
_PLAIN: Final = r"(?: (?!tox-uv)[\w.,\[\]=<>~/-]+)*"  # words without quotes and operators
_TOX: Final = re.compile(rf"(?:python[\d.]* -m )?pip3? install{_PLAIN} tox{_PLAIN}")
_TOX_UV_PYTHON: Final = (3, 10)
_NOX: Final = re.compile(r"(?P<nox>(?:python[\d.]* -m )?nox)(?P<rest>(?: .*)?)")
_NOX_BACKEND: Final = re.compile(r"\s-(?:db|fb|-default-venv-backend|-force-venv-backend|-no-venv)\b")


def faults_of(draft: Draft, job: Job) -> Iterator[tuple[Place, str]]:
    """What keeps a job with such a program from running on a baked image: where, and why."""
    for line in job.lines:
        for use in uses_below(line.scalar.value, draft.pipeline.folder):
            if reason := _reason(use, job):
                yield draft.pipeline.place(line.scalar), f"`{use.via or use.command}`: {reason}"


def _reason(use: Use, job: Job) -> str:
    if use.via and _CREATES.match(use.command):
        return f"it runs `{use.command}`, which hides the baked environment; remove that"
    for pattern, reason in _FAILING.items():
        if re.match(pattern, use.command):
            return reason
    name = use.program if _SYNCING.match(use.command) else ""
    if name and any(re.search(rf"\bpip3? install\b.*\b{name}\b", line.scalar.value) for line in job.lines):
        return f"it would remove {name} itself from the baked environment; remove that option"
    variable = next((each for each, program in _IGNORING.items() if program == use.program), "")
    if variable_values(job).get(variable, "").lower() in {"1", "true", "yes"}:
        return f"{variable} hides the baked environment from it; remove that variable"
    return ""


def use_uv(draft: Draft) -> None:
    """Let tox and nox install by uv, from the image's warm cache, if their configuration does not ask for pip."""
    users: dict[Scalar, set[Job]] = {}
    for job in draft.jobs:
        for line in job.lines:
            users.setdefault(line.scalar, set()).add(job)
    for job in (job for job in draft.jobs if job in draft.baked):
        _remark_on_manager(draft, job)
        for program, files in (("tox", ("tox.ini", "setup.cfg", "pyproject.toml")), ("nox", ("noxfile.py",))):
            uses = [line for line in job.lines if any(use.program == program for use in uses_in(line.scalar.value))]
            if not uses:
                continue
            lines = [line for line in job.lines if _with_uv(line.scalar.value, program)]
            stays = _asks_for_pip(draft, files) or (program == "tox" and not _has_tox_uv(draft))
            if stays or not lines or not all(_is_free(draft, line, users) for line in lines):
                draft.downloading[job] = program
                text = f"{program} fills environments of its own by pip; it could use uv and the image's warm cache"
                draft.remark(uses[0].scalar, job, text, kind="check")
            else:
                draft.replaced.update({line.scalar: _with_uv(line.scalar.value, program) for line in lines})


def _has_tox_uv(draft: Draft) -> bool:
    """Whether tox-uv-bare can be installed wherever a job may run: it has no release for an older Python."""
    return all(cell.interpreter.minor >= _TOX_UV_PYTHON for cell in draft.images.matrix.cells)


def _is_free(draft: Draft, line: Line, users: Mapping[Scalar, Set[Job]]) -> bool:
    """Whether a line can be edited, and only jobs on baked images have it."""
    return draft.pipeline.file_of(line.scalar).is_replaceable(line.scalar) and users[line.scalar] <= draft.baked


def _with_uv(command: str, program: str) -> str:
    """The command so that the program installs by uv; '' if it is not one that can be changed."""
    if program == "tox":
        return f"{command} tox-uv-bare" if _TOX.fullmatch(command) else ""
    match = _NOX.fullmatch(command)
    is_simple = match and not _NOX_BACKEND.search(command) and not re.search(r"[;&|]", command)
    return f"{match['nox']} -db uv{match['rest']}" if match and is_simple else ""


def _asks_for_pip(draft: Draft, files: Sequence[str]) -> bool:
    """Whether sessions run pip themselves, which uv's environments lack, or their configuration is not here."""
    folder = draft.pipeline.folder
    texts = [read_inside(folder / name, folder) for name in files] if folder else []
    return not any(texts) or any(_PIP_IN_SESSIONS.search(text) for text in texts)


def _remark_on_manager(draft: Draft, job: Job) -> None:
    for line in job.lines:
        for use in uses_in(line.scalar.value):
            if use.program in _MANAGERS:
                text = f"{_MANAGERS[use.program]} will use the baked environment, which needs a lock for builder"
                draft.remark(line.scalar, job, f"{text}; write it by `{_EXPORTS[use.program]}`", kind="check")
                return
