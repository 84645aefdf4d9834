"""The edits to a pipeline while `ci adopt` works them out, and the remarks to print."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TypeVar

from builder.gitlab.adopt.file import GitLabFile
from builder.gitlab.adopt.handover import handed_over
from builder.gitlab.adopt.job import Job, Line, variables_in
from builder.gitlab.adopt.lock import ProjectLock
from builder.gitlab.adopt.node import Collection, Node, Scalar, Slot
from builder.gitlab.adopt.pipeline import Pipeline, Place
from builder.gitlab.adopt.remark import Remark, RemarkKind
from builder.gitlab.adopt.removal import Obstacle, Removal, parts_of
from builder.gitlab.adopt.script import (
    INSTALLS,
    VENV_EFFECTS,
    Effect,
    effect_of,
    effects_inside,
    is_compound,
    rest_after_venv,
)
from builder.matrix.model import Matrix

_Topic = TypeVar("_Topic")


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command in a job's script that concerns the baked environment; `place` is the line of the file it is in.

    `rest` is what stays of its line, if it is one of several commands and can be removed from their beginning.
    """

    job: Job
    line: Line
    text: str
    effect: Effect
    place: Place
    is_editable: bool
    rest: str = ""


@dataclass(frozen=True, kw_only=True)
class Images:
    """The images that jobs may run on: the cells of a matrix, in a repository.

    `newest_python` is what `python:latest` stands for, '' if that is open. `suffix` ends the tags, as `$PREBUILT` does.
    `lock` is the one that a proposed matrix bakes.
    """

    matrix: Matrix
    repository: str
    newest_python: str = ""
    suffix: str = ""
    lock: ProjectLock | None = None


class Draft:
    """The edits so far.

    Jobs are `baked` once they run on a baked image, and `with_venv` if they keep an environment of their own as well.
    `refused` are the names of jobs that would fail on a baked image.
    """

    def __init__(self, pipeline: Pipeline, jobs: Sequence[Job], images: Images, refused: Set[str]) -> None:
        self.pipeline = pipeline
        self.images = images
        self.jobs = tuple(job for job in jobs if not job.is_trigger and not job.is_partial)
        self.refused = refused
        self.commands_of = {
            job: tuple(command for line in job.lines for command in _commands(pipeline, job, line)) for job in self.jobs
        }
        self.commands = tuple(command for commands in self.commands_of.values() for command in commands)
        self.venvs = frozenset(command.effect.venv for command in self.commands if command.effect.kind in VENV_EFFECTS)
        self.created_venvs = frozenset(
            command.effect.venv for command in self.commands if command.effect.kind == "create-venv"
        )
        self.handed_over = handed_over(
            {
                job: {each.effect.venv for each in commands if each.effect.kind in VENV_EFFECTS}
                for job, commands in self.commands_of.items()
            },
            pipeline.folder,
        )
        self.installing = {job: _installing(job) for job in self.jobs}
        self.baked: set[Job] = set()
        self.with_venv: set[Job] = set()
        self.kept_venvs: set[str] = set()  # that are for something else than the project
        self.downloading: dict[Job, str] = {}  # jobs whose tox or nox fills its environments by pip
        self.dropped_variables: set[str] = set()  # variables that the removed or replaced text expanded
        self.removal = Removal(pipeline, self.jobs)
        self.replaced: dict[Scalar, str] = {}
        self.own_images: dict[Collection, Scalar] = {}  # images that jobs keep although the inherited one changes
        self.remarks: set[Remark] = set()

    def remark(self, at: Node | Slot | Place, job: Job | None, text: str, *, kind: RemarkKind = "note") -> None:
        """Add a remark about a part of a file."""
        place = at if isinstance(at, Place) else self.pipeline.place(at)
        self.remarks.add(Remark(kind=kind, place=place, job=job.name if job else "", text=text))

    def remove(self, slots: Set[Slot]) -> Obstacle | None:
        """Remove slots and everything that depends on them; or remove nothing and return what prevents it."""
        added = self.removal.add(slots)
        if isinstance(added, Obstacle):
            return added
        for slot in added:
            self.dropped_variables |= {
                name for part in parts_of(slot) if isinstance(part, Scalar) for name in variables_in(part.value)
            }
        return None

    def remove_each(self, proposals: Sequence[tuple[Set[Slot], _Topic]]) -> Iterator[tuple[_Topic, str]]:
        """Remove each set of slots, together if possible; yield the topics of the sets that stay, with the reason."""
        obstacle = self.remove(frozenset().union(*(slots for slots, _ in proposals))) if proposals else None
        if obstacle and len(proposals) == 1:
            yield proposals[0][1], obstacle.reason
        elif obstacle:
            middle = len(proposals) // 2
            yield from self.remove_each(proposals[:middle])
            yield from self.remove_each(proposals[middle:])

    def reason_to_keep(self, users: Iterable[Job]) -> str:
        """Why something that these jobs use must stay; '' if it can go."""
        for job in users:
            if job in self.with_venv:
                return f"{job.name} keeps its own environment"
            if job in self.downloading:
                return f"{self.downloading[job]} in {job.name} downloads packages"
            if job not in self.baked and self.installing[job]:
                return f"{job.name} does not run on a baked image"
        return ""

    def variable_uses(self) -> Mapping[str, Sequence[tuple[Scalar, Slot]]]:
        """The variables that the pipeline, as edited so far, expands: where, and in which slot."""
        uses: defaultdict[str, list[tuple[Scalar, Slot]]] = defaultdict(list)
        for collection in self.pipeline.collections():
            for slot in collection.slots:
                for scalar in (slot.key, slot.value):
                    if isinstance(scalar, Scalar) and slot not in self.removal.gone:
                        for name in variables_in(self.replaced.get(scalar, scalar.value)) - {slot.name}:
                            uses[name].append((scalar, slot))
        return uses


def variable_values(job: Job) -> Mapping[str, str]:
    """The values of a job's variables in its first combination, to expand paths with."""
    return job.variable_sets[0]


def _installing(job: Job) -> Line | None:
    """The first line of a job that installs or manages Python packages."""
    return next((line for line in job.lines if INSTALLS.search(line.scalar.value)), None)


def _commands(pipeline: Pipeline, job: Job, line: Line) -> Iterator[Command]:
    scalar = line.scalar
    file = pipeline.file_of(scalar)
    is_one_line = "\n" not in file.text[scalar.start : scalar.end]
    whole = effect_of(scalar.value, variable_values(job)) if is_one_line else None
    effects = [(0, scalar.value.strip(), whole)] if whole else effects_inside(scalar.value, variable_values(job))
    for number, text, effect in effects:
        is_alone = (
            is_one_line
            and whole is not None
            and (effect.kind in {"install-uv", "add-uv-to-path"} or not is_compound(text))
        )
        if effect.kind == "run-program":
            is_editable = is_alone and file.is_replaceable(scalar) and scalar.value.startswith(effect.prefix)
        else:
            is_editable = is_alone and line.slot is not None and effect.kind != "use-path"
        rest = rest_after_venv(scalar.value, text, variable_values(job)) if file.is_replaceable(scalar) else ""
        yield Command(
            job=job, line=line, text=text, effect=effect, place=_place_of_line(file, scalar, number),
            is_editable=is_editable or bool(rest), rest=rest,
        )  # fmt: skip


def _place_of_line(file: GitLabFile, scalar: Scalar, number: int) -> Place:
    """A line of a block scalar, counted from 0; for any other scalar, the line where the scalar begins."""
    below = number + 1 if scalar.style in {"|", ">"} else 0
    return Place(source=file.source, line=file.line(scalar.start) + below)
