"""Begin with a project: what to write, what was decided and why, and the next command. Writes nothing itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from builder.errors import BuilderError, GitLabFileError, UsageError
from builder.gitlab.adopt.file import EditedFile
from builder.gitlab.adopt.include import MAIN, read_pipeline, top_folder
from builder.gitlab.adopt.inclusion import include_component
from builder.gitlab.adopt.inheritance import read_jobs
from builder.gitlab.adopt.lock import ProjectLock, find_project_lock
from builder.gitlab.adopt.pipeline import Pipeline
from builder.gitlab.adopt.program import read_inside
from builder.gitlab.component import COPY, component_text
from builder.lock.discovery import MATRIX_NAME, matrix_in
from builder.lock.model import Lock
from builder.lock.read import read_lock
from builder.matrix.file import parse_matrix
from builder.matrix.schema import Install
from builder.start.survey import Survey, survey
from builder.start.text import matrix_text, pipeline_text

_GITHUB: Final = re.compile(r"url\s*=\s*\S*github\.com[:/]")


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """New texts of files by their path, what to tell the user, and the next command."""

    files: Mapping[Path, str]
    said: tuple[str, ...]
    command: str


def begin(folder: Path, component: str, cache: Path, *, force: bool) -> Beginning:
    """Survey the project in a folder, and propose its matrix and the include of the component at an address, or a copy.

    Without `force` no file that exists is among the new ones. Raises UsageError if the project has a matrix already.
    """
    existing = matrix_in(folder)
    if existing and not (force and existing.name == MATRIX_NAME):
        name = existing.relative_to(folder)
        replaced = "; --force replaces it" if existing.name == MATRIX_NAME else ""
        raise UsageError(f"this project has a matrix: {name}", hint=f"`builder plan` shows what it makes{replaced}")
    notes: list[str] = []
    project_lock = find_project_lock(folder)
    lock = _read(folder, project_lock, cache, notes)
    pipeline = _pipeline(folder, notes)
    found = survey(folder, pipeline, lock)
    text = matrix_text(found)
    matrix = parse_matrix(text, source=MATRIX_NAME)
    files = {folder / MATRIX_NAME: text}
    notes += found.notes
    said = [*_decisions(found, project_lock), *notes]
    first = matrix.cells[0].name
    if pipeline:
        files |= _included(folder, pipeline, component, said, force=force)
    elif _is_for_gitlab(folder):
        files |= _new_pipeline(folder, component, project_lock, first)
        said.append(f"GitLab: a pipeline with the component, which builds the images, and a job on {first}")
    chain = [project_lock.command] if project_lock.command else []
    return Beginning(files=files, said=tuple(said), command=" && ".join([*chain, "builder plan"]))


def _read(folder: Path, found: ProjectLock, cache: Path, notes: list[str]) -> Lock | None:
    """The project's lock; None if there is none, or if it cannot be read, with a note."""
    if found.command:
        return None
    try:
        return read_lock(folder / found.path, Install(), cache)
    except BuilderError as error:
        notes.append(f"{found.path} could not be read: {error.what.splitlines()[0]}")
        return None


def _pipeline(folder: Path, notes: list[str]) -> Pipeline | None:
    path = folder / MAIN
    try:
        return read_pipeline(path) if path.is_file() else None
    except GitLabFileError as error:
        notes.append(f"{error.what}; so {MAIN} decides nothing")
        return None


def _decisions(found: Survey, lock: ProjectLock) -> list[str]:
    pythons = list(dict.fromkeys(cell.python for cell in found.wanted.cells))
    bases = list(dict.fromkeys(cell.base for cell in found.wanted.cells))
    others = f" (not {', '.join(lock.others)})" if lock.others else ""
    missing = f", which `{lock.command}` writes" if lock.command else ""
    lines = [
        f"lock: {lock.path}{missing}{others}",
        f"Python {', '.join(pythons)}: {found.python_why}",
        f"base {', '.join(bases)}: {found.base_why}",
    ]
    packages = sorted({name for names in found.wanted.packages.values() for name in names})
    lines += [f"system packages {', '.join(packages)}: {found.packages_why}"] if packages else []
    for kind, choice in (("groups", found.groups), ("extras", found.extras)):
        names = choice.names if isinstance(choice.names, str) else ", ".join(choice.names)
        lines += [f"{kind} {names}: {choice.why}"] if names else []
        lines += [f"{kind} left out, because no job installs them: {', '.join(choice.others)}"] if choice.others else []
    lines += [f"tools {', '.join(found.tools)}: jobs run them by uvx"] if found.tools else []
    return [*lines, *([f"uv {found.uv}: the lock requires or installs it"] if found.uv else [])]


def _included(folder: Path, pipeline: Pipeline, component: str, said: list[str], *, force: bool) -> dict[Path, str]:
    """The files that include the component in an existing pipeline; without `force` only lines to add by hand."""
    if pipeline.has_component:
        said.append(f"{MAIN} includes the component already")
        return {}
    jobs = [job for job in read_jobs(pipeline) if not job.is_trigger and not job.is_partial]
    edited = EditedFile(file=pipeline.files[0], cuts=())
    inclusion = include_component(pipeline, edited, component, jobs)
    said += [remark.text for remark in inclusion.remarks]
    files = {} if component or (folder / COPY).exists() else {folder / COPY: component_text()}
    if force and inclusion.file.cuts:
        said.append(f"{MAIN} includes the component; `builder ci adopt` shows how its jobs move to the images")
        return {folder / MAIN: inclusion.file.text, **files}
    lines = [line for cut in inclusion.file.cuts for line in cut.text.splitlines() if line]
    adopt = f"builder ci adopt{f' --component {component}' if component else ''} | git apply"
    stays = f"{MAIN} stays as it is. `{adopt}` adds these lines, and moves its jobs to the images; --force only adds:"
    said.append("\n".join([stays, *(f"    {line}" for line in lines)]))
    return files


def _is_for_gitlab(folder: Path) -> bool:
    """Whether a project without a pipeline may get one: not if it is on GitHub, or only a part of a repository."""
    top = top_folder(folder / MAIN)
    is_on_github = (top / ".github").is_dir() or _GITHUB.search(read_inside(top / ".git/config", top))
    return top == folder.resolve() and not is_on_github


def _new_pipeline(folder: Path, component: str, lock: ProjectLock, tag: str) -> dict[Path, str]:
    inputs = {"lock": "" if lock.path == "uv.lock" else lock.path}
    is_uv = lock.path.endswith("uv.lock")
    has_pytest = "pytest" in read_inside(folder / "pyproject.toml", folder) + read_inside(folder / lock.path, folder)
    install = "uv sync --frozen" if is_uv else f"uv pip install -r {lock.path}"
    script = [install, "pytest" if has_pytest else "python -c 'import sys; print(sys.version)'"]
    files = {folder / MAIN: pipeline_text(component, inputs, tag, script)}
    if not component and not (folder / COPY).exists():
        files[folder / COPY] = component_text()
    return files
