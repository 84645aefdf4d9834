"""The edits of a GitLab file while its adoption is being worked out, and what is to be said of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TypeVar

from builder.gitlab.adopt.file import GitLabFile, Scalar, Slot, walk
from builder.gitlab.adopt.job import Job, Line, variables_in
from builder.gitlab.adopt.removal import Obstacle, inside, removal
from builder.gitlab.adopt.script import INSTALLS, VENV_DEEDS, Deed, deed, deeds_inside, is_compound
from builder.matrix.model import Matrix

Subject = TypeVar("Subject")


@dataclass(frozen=True, kw_only=True, order=True)
class Remark:
    """What was left alone, or is to be known: at which line, of which job ('' for none), and why."""

    line: int
    job: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Use:
    """A command in a line of a job's script: its text, what it does, where it begins, and whether it can be edited."""

    job: Job
    line: Line
    text: str
    deed: Deed
    at: int
    is_editable: bool


class Draft:
    """The edits so far. Jobs are `baked` once their image is, `with_venv` where an environment of their own stays."""

    def __init__(
        self, file: GitLabFile, jobs: Sequence[Job], matrix: Matrix, repository: str, refused: Set[str]
    ) -> None:
        self.file = file
        self.jobs = tuple(job for job in jobs if not job.is_trigger)
        self.matrix = matrix
        self.repository = repository
        self.refused = refused  # names of jobs that would fail on a baked image
        self.uses = tuple(use for job in self.jobs for line in job.lines for use in _uses(file, job, line))
        self.venvs = frozenset(use.deed.venv for use in self.uses if use.deed.kind in VENV_DEEDS)
        self.installing = {job: _installing(job) for job in self.jobs}
        self.baked: set[Job] = set()
        self.with_venv: set[Job] = set()
        self.freed: set[str] = set()  # variables that edited words named
        self.removed: frozenset[Slot] = frozenset()
        self.replaced: dict[Scalar, str] = {}
        self.remarks: set[Remark] = set()

    def say(self, index: int, job: Job | None, text: str) -> None:
        """Remark on a place in the text."""
        self.remarks.add(Remark(line=self.file.line(index), job=job.name if job else "", text=text))

    def remove(self, slots: Set[Slot]) -> Obstacle | None:
        """Take slots out with all that has to go along; or nothing, and return what is in the way."""
        found = removal(self.file, self.jobs, self.removed | slots)
        if isinstance(found, Obstacle):
            return found
        for slot in found - self.removed:
            self.freed |= {name for scalar in _texts(slot) for name in variables_in(scalar.value)}
        self.removed = found
        return None

    def remove_each(self, proposals: Sequence[tuple[Set[Slot], Subject]]) -> Iterator[tuple[Subject, str]]:
        """Take out each of several sets of slots, together where that can be; yield what stays, and why."""
        obstacle = self.remove(frozenset().union(*(slots for slots, _ in proposals))) if proposals else None
        if obstacle and len(proposals) == 1:
            yield proposals[0][1], obstacle.why
        elif obstacle:
            middle = len(proposals) // 2
            yield from self.remove_each(proposals[:middle])
            yield from self.remove_each(proposals[middle:])

    def blocked(self, users: Iterable[Job]) -> str:
        """Why what these jobs use has to stay; '' where it has not."""
        for job in users:
            if job in self.with_venv:
                return f"{job.name} keeps an environment of its own"
            if job not in self.baked and self.installing[job]:
                return f"{job.name} does not run on a baked image"
        return ""

    def naming(self) -> dict[str, Scalar]:
        """Of each variable that the file, as edited so far, names otherwise than to set it: the first such place."""
        gone = inside(self.removed)
        found: dict[str, Scalar] = {}
        for collection in walk(self.file.root):
            for slot in collection.slots:
                for scalar in (slot.key, slot.value):
                    if slot not in gone and isinstance(scalar, Scalar):
                        names = variables_in(self.replaced.get(scalar, scalar.value)) - {slot.name}
                        found = {**dict.fromkeys(names, scalar), **found} if names else found
        return found


def environment(job: Job) -> Mapping[str, str]:
    """The values of a job's variables in the first of its combinations, to expand paths with."""
    return job.environments[0]


def _installing(job: Job) -> Line | None:
    """The first line of a job that has to do with Python packages."""
    return next((line for line in job.lines if INSTALLS.search(line.scalar.value)), None)


def _uses(file: GitLabFile, job: Job, line: Line) -> Iterator[Use]:
    scalar = line.scalar
    one_line = "\n" not in file.text[scalar.start : scalar.end]
    whole = deed(scalar.value, environment(job)) if one_line else None
    found = [(0, scalar.value.strip(), whole)] if whole else deeds_inside(scalar.value, environment(job))
    for number, text, each in found:
        alone = one_line and whole is not None and (each.kind in {"uv", "uv-path"} or not is_compound(text))
        if each.kind == "runs":
            is_editable = alone and file.is_replaceable(scalar) and scalar.value.startswith(each.prefix)
        else:
            is_editable = alone and line.slot is not None and each.kind != "uses"
        at = _line_of_block(file, scalar, number)
        yield Use(job=job, line=line, text=text, deed=each, at=at, is_editable=is_editable)


def _line_of_block(file: GitLabFile, scalar: Scalar, number: int) -> int:
    """Where a line of a block scalar begins, counted from 0; of any other scalar, where that begins."""
    at = scalar.start
    for _ in range(number + 1 if scalar.style in {"|", ">"} else 0):
        at = file.text.find("\n", at) + 1
    return at


def _texts(slot: Slot) -> Iterator[Scalar]:
    """The scalars in a slot's value."""
    if isinstance(slot.value, Scalar):
        yield slot.value
    for collection in walk(slot.value):
        for each in collection.slots:
            if isinstance(each.value, Scalar):
                yield each.value
