"""Formats figures: samples with medians, tables, and the machine."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Repeated measurements of one thing, in seconds."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median; half of the rounds took longer."""
        return statistics.median(self.values)

    @property
    def cells(self) -> tuple[str, str]:
        """The median and the range, as two cells of a table."""
        digits = 2 if self.median >= 1 else 3
        return f"{self.median:.{digits}f} s", f"{min(self.values):.{digits}f} … {max(self.values):.{digits}f}"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format rows under their headers: the first column left-aligned, the others right-aligned."""
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
    """Say whether a target is met."""
    return "met" if met else "MISSED"


def machine() -> str:
    """Describe the machine: cores and architecture, no names."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return f"{cores} cores, {platform.system()} {platform.machine()}"


def load() -> str:
    """The average number of running processes in the last minute; above the number of cores, times are unreliable."""
    return f"{os.getloadavg()[0]:.1f}"


def say(text: str) -> None:
    """Report progress on stderr; stdout has only the figures."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
