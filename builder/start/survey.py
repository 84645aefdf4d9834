"""What a project's own files say about the images that its jobs need, and what follows from that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from packaging.specifiers import SpecifierSet

from builder.errors import LockError
from builder.gitlab.adopt.adopt import adopt_without_matrix
from builder.gitlab.adopt.inheritance import read_jobs
from builder.gitlab.adopt.installed import Installed, installed_extras, installed_groups, tools_run
from builder.gitlab.adopt.job import Job
from builder.gitlab.adopt.package import packages_in
from builder.gitlab.adopt.pipeline import Pipeline
from builder.gitlab.adopt.proposal import (
    WantedCell,
    WantedCells,
    cell_for,
    is_bakeable,
    project_python,
    required_python,
    wanted_cells,
    works_on_project,
)
from builder.lock.model import Lock
from builder.lock.python import PythonChoice, choose_python
from builder.matrix.file import built_in_matrix
from builder.start.clues import Clues, read_dockerfile, read_workflows

_DEFAULT_BASE: Final = "bookworm-slim"


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The cells that a project's jobs need, and the groups and extras that they install, each with the reason.

    `notes` say what was seen and left out.
    """

    wanted: WantedCells
    python_why: str
    base_why: str
    packages_why: str = ""
    groups: Installed = Installed()  # noqa: RUF009 - frozen
    extras: Installed = Installed()  # noqa: RUF009 - frozen
    uv: str | None = None
    tools: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def survey(folder: Path, pipeline: Pipeline | None, lock: Lock | None) -> Survey:
    """Survey a project: its pipeline in GitLab, else its workflows on GitHub and its Dockerfile, else its lock."""
    jobs = _baked_jobs(pipeline) if pipeline else ()
    workflows, dockerfile = read_workflows(folder), read_dockerfile(folder)
    workers = [job for job in jobs if works_on_project(job, folder)]
    in_gitlab = wanted_cells(workers, folder, [job for job in jobs if job not in workers])
    if pipeline and in_gitlab.cells:
        name = Path(pipeline.files[0].source).name
        found = Survey(
            wanted=in_gitlab, python_why=f"the images of the jobs in {name}", base_why=f"of the same jobs in {name}",
            packages_why=f"what jobs in {name} install or need", uv=(lock.uv or lock.installed_uv) if lock else None,
        )  # fmt: skip
    else:
        found = _from_clues(folder, workflows, dockerfile, lock)
    scripts = [line.scalar.value for job in jobs for line in job.lines]
    scripts += [script for clues in workflows for script in clues.scripts]
    if lock and lock.kind == "uv.lock":
        found = replace(found, groups=installed_groups(folder, scripts), extras=installed_extras(folder, scripts))
    return replace(found, tools=tools_run(scripts))


def _baked_jobs(pipeline: Pipeline) -> tuple[Job, ...]:
    """The jobs that can run on baked images."""
    baked = adopt_without_matrix(pipeline, "").baked
    return tuple(job for job in read_jobs(pipeline) if job.name in baked)


def _from_clues(folder: Path, workflows: Sequence[Clues], dockerfile: Clues | None, lock: Lock | None) -> Survey:
    clues = [*workflows, *([dockerfile] if dockerfile else [])]
    chosen = _chosen_python(folder, lock)
    named, notes = _named_pythons(folder, clues)
    pythons, python_why = named or ((chosen.version,), chosen.reason)
    imaged = next((each for each in clues if each.images), None)
    bases = [cell_for(image, "", chosen.version) for image in imaged.images] if imaged else []
    bases = [cell for cell in bases if is_bakeable(cell)] or [WantedCell(python=chosen.version, base=_DEFAULT_BASE)]
    is_default = not imaged or bases[0].base == _DEFAULT_BASE
    unique = {cell.base: cell for cell in bases}.values()
    packages = {cell.base: _packages(cell, clues) for cell in unique}
    sources = [each.source for each in clues if any(_packages(cell, [each]) for cell in unique)]
    return Survey(
        wanted=WantedCells(
            cells=tuple(replace(cell, python=python) for python in pythons for cell in unique), packages=packages
        ),
        python_why=python_why,
        base_why="Debian bookworm, the default" if is_default or imaged is None else f"the image of {imaged.source}",
        packages_why=f"what {' and '.join(sources)} installs" if sources else "",
        uv=(lock.uv or lock.installed_uv) if lock else None,
        notes=notes,
    )


def _chosen_python(folder: Path, lock: Lock | None) -> PythonChoice:
    """The Python of `.python-version`, else the newest that the lock, or without one the project, allows."""
    if lock:
        try:
            return choose_python(lock, lambda version: built_in_matrix(version).cells[0])
        except LockError as error:
            return PythonChoice(version=project_python(folder), reason=f"check it: {error.what.splitlines()[0]}")
    is_pinned = (folder / ".python-version").is_file()
    reason = ".python-version names it" if is_pinned else "the newest that requires-python allows"
    return PythonChoice(version=project_python(folder), reason=reason)


def _named_pythons(folder: Path, clues: Iterable[Clues]) -> tuple[tuple[tuple[str, ...], str] | None, tuple[str, ...]]:
    """The first list of Pythons that a file names, without those that the project excludes; notes about these."""
    allowed = required_python(folder)
    notes = []
    for each in clues:
        fit = [python for python in each.pythons if _is_allowed(python, allowed)]
        out = [python for python in each.pythons if python not in fit]
        if fit:
            notes += [f"{each.source} also names Python {', '.join(out)}, which this project excludes"] if out else []
            return (tuple(dict.fromkeys(fit)), f"what {each.source} names"), tuple(notes)
    return None, ()


def _is_allowed(python: str, allowed: SpecifierSet) -> bool:
    full = python if python.count(".") == 2 else f"{python}.99"
    return full in allowed and is_bakeable(WantedCell(python=python, base=_DEFAULT_BASE))


def _packages(cell: WantedCell, clues: Iterable[Clues]) -> Set[str]:
    family = "alpine" if cell.base == "alpine" else "debian"
    scripts = [script for each in clues for script in each.scripts]
    return {name for script in scripts for name in packages_in(script, family) if not name.startswith("python")}
