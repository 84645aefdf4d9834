"""What `ci adopt` tells the user besides the diff: what it left alone and why, and what to check."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from builder.gitlab.adopt.pipeline import Place

LONGEST: Final = 120  # characters of a remark without --explain
RemarkKind = Literal["left-alone", "check", "stays", "note"]
_ORDER: Final = ("left-alone", "check", "stays", "note")  # most important first


@dataclass(frozen=True, kw_only=True)
class Remark:
    """What was left alone (`left-alone`, `stays`), what to `check`, or a `note`.

    `job` is '' if it concerns no single job. What follows the first semicolon of the text says what to do.
    """

    kind: RemarkKind
    place: Place
    job: str
    text: str

    @property
    def full(self) -> str:
        """The remark with its place, in one line."""
        job = f"{self.job}: " if self.job else ""
        return f"{self.place.source}:{self.place.line}: {job}{self.text}"


def in_order(remarks: Iterable[Remark]) -> list[Remark]:
    """The most important ones first; equally important ones in the order of the files."""
    return sorted(remarks, key=lambda each: (_ORDER.index(each.kind), each.place, each.job, each.text))


def in_brief(remarks: Iterable[Remark]) -> Iterator[str]:
    """One line for all remarks that say the same, of at most `LONGEST` characters."""
    groups: dict[tuple[str, str], list[Remark]] = {}
    for remark in in_order(remarks):
        groups.setdefault((remark.kind, remark.text.partition("; ")[0]), []).append(remark)
    for (_, text), group in groups.items():
        first, jobs = group[0], list(dict.fromkeys(remark.job for remark in group if remark.job))
        place = f"{first.place.source}:{first.place.line}"
        others = f" (+{len(jobs) - 1})" if len(jobs) > 1 else f" (+{len(group) - 1} lines)" if len(group) > 1 else ""
        line = f"{place}: {jobs[0] if jobs else ''}{others}: {text}".replace(": : ", ": ")
        yield line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
