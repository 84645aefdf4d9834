"""Rows as text with aligned columns."""

from __future__ import annotations

from collections.abc import Sequence, Set


def columns(rows: Sequence[Sequence[str]], right: Set[int] = frozenset()) -> str:
    """Rows as text with aligned columns; those in `right` are aligned to the right."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            f"{cell:>{width}}" if at in right else f"{cell:<{width}}"
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
