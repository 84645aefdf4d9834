"""Figures as people read them: samples with their medians, tables, and the machine they were taken on."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One thing measured several times, in seconds."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value; half of the rounds took longer."""
        return statistics.median(self.values)

    @property
    def cells(self) -> tuple[str, str]:
        """The median and the range, as two cells of a table."""
        digits = 2 if self.median >= 1 else 3
        return f"{self.median:.{digits}f} s", f"{min(self.values):.{digits}f} … {max(self.values):.{digits}f}"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows under their headers: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [headers, *rows]) for column in range(len(headers))]
    return "\n".join(
        "  "
        + "   ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [headers, *rows]
    )


def judged(met: bool) -> str:
    """How a target is spoken of; nothing depends on the answer."""
    return "met" if met else "MISSED"


def machine() -> str:
    """The machine in a few words: cores and kind, no names."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return f"{cores} cores, {platform.system()} {platform.machine()}"


def load() -> str:
    """How many processes were at work in the last minute: above the number of cores, times tell little."""
    return f"{os.getloadavg()[0]:.1f}"


def say(text: str) -> None:
    """Tell what is being done, on stderr; stdout has the figures alone."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
