"""The edits to a GitLab file while `ci adopt` works them out, and the remarks to print."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TypeVar

from builder.gitlab.adopt.file import GitLabFile, Scalar, Slot, walk
from builder.gitlab.adopt.job import Job, Line, variables_in
from builder.gitlab.adopt.removal import Obstacle, complete_removal, removed_nodes
from builder.gitlab.adopt.script import INSTALLS, VENV_EFFECTS, Effect, effect_of, effects_inside, is_compound
from builder.matrix.model import Matrix

_Topic = TypeVar("_Topic")


@dataclass(frozen=True, kw_only=True, order=True)
class Remark:
    """Something to tell the user, such as what was left alone and why; `job` is '' if it concerns no single job."""

    line: int
    job: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command in a job's script that concerns the baked environment; `index` is where it begins in the file."""

    job: Job
    line: Line
    text: str
    effect: Effect
    index: int
    is_editable: bool


class Draft:
    """The edits so far.

    Jobs are `baked` once they run on a baked image, and `with_venv` if they keep an environment of their own as well.
    """

    def __init__(
        self, file: GitLabFile, jobs: Sequence[Job], matrix: Matrix, repository: str, refused: Set[str]
    ) -> None:
        self.file = file
        self.jobs = tuple(job for job in jobs if not job.is_trigger)
        self.matrix = matrix
        self.repository = repository
        self.refused = refused  # names of jobs that would fail on a baked image
        self.commands_of = {
            job: tuple(command for line in job.lines for command in _commands(file, job, line)) for job in self.jobs
        }
        self.commands = tuple(command for commands in self.commands_of.values() for command in commands)
        self.created = frozenset(
            command.effect.venv for command in self.commands if command.effect.kind == "create-venv"
        )
        self.venvs = frozenset(command.effect.venv for command in self.commands if command.effect.kind in VENV_EFFECTS)
        self.installing = {job: _installing(job) for job in self.jobs}
        self.baked: set[Job] = set()
        self.with_venv: set[Job] = set()
        self.dropped_variables: set[str] = set()  # variables that the removed or replaced text expanded
        self.removed: frozenset[Slot] = frozenset()
        self.replaced: dict[Scalar, str] = {}
        self.remarks: set[Remark] = set()

    def remark(self, index: int, job: Job | None, text: str) -> None:
        """Add a remark about a place in the file."""
        self.remarks.add(Remark(line=self.file.line(index), job=job.name if job else "", text=text))

    def remove(self, slots: Set[Slot]) -> Obstacle | None:
        """Remove slots and everything that depends on them; or remove nothing and return what prevents it."""
        removal = complete_removal(self.file, self.jobs, self.removed | slots)
        if isinstance(removal, Obstacle):
            return removal
        for slot in removal - self.removed:
            self.dropped_variables |= {name for scalar in _scalars_in(slot) for name in variables_in(scalar.value)}
        self.removed = removal
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
            if job not in self.baked and self.installing[job]:
                return f"{job.name} does not run on a baked image"
        return ""

    def variable_uses(self) -> dict[str, Scalar]:
        """The variables that the file, as edited so far, expands, each with the first place that does so."""
        gone = removed_nodes(self.removed)
        uses: dict[str, Scalar] = {}
        for collection in walk(self.file.root):
            for slot in collection.slots:
                for scalar in (slot.key, slot.value):
                    if slot not in gone and isinstance(scalar, Scalar):
                        names = variables_in(self.replaced.get(scalar, scalar.value)) - {slot.name}
                        for name in names:
                            uses.setdefault(name, scalar)
        return uses


def variable_values(job: Job) -> Mapping[str, str]:
    """The values of a job's variables in its first combination, to expand paths with."""
    return job.variable_sets[0]


def _installing(job: Job) -> Line | None:
    """The first line of a job that installs or manages Python packages."""
    return next((line for line in job.lines if INSTALLS.search(line.scalar.value)), None)


def _commands(file: GitLabFile, job: Job, line: Line) -> Iterator[Command]:
    scalar = line.scalar
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
        index = _index_of_line(file, scalar, number)
        yield Command(job=job, line=line, text=text, effect=effect, index=index, is_editable=is_editable)


def _index_of_line(file: GitLabFile, scalar: Scalar, number: int) -> int:
    """Where a line of a block scalar begins, counted from 0; for any other scalar, where the scalar begins."""
    index = scalar.start
    for _ in range(number + 1 if scalar.style in {"|", ">"} else 0):
        index = file.text.find("\n", index) + 1
    return index


def _scalars_in(slot: Slot) -> Iterator[Scalar]:
    """The scalars in a slot's value."""
    if isinstance(slot.value, Scalar):
        yield slot.value
    for collection in walk(slot.value):
        for inner in collection.slots:
            if isinstance(inner.value, Scalar):
                yield inner.value
