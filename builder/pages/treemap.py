"""Treemaps: areas in proportion to sizes, as near to squares as they can be.

The layout is "squarified" (Bruls, Huizing and van Wijk: Squarified Treemaps, 2000).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 960.0
HEIGHT: Final = 420.0
_CHARACTER: Final = 8.6  # width of a character of a label, generously
_LINE: Final = 16.0


@dataclass(frozen=True, kw_only=True)
class Part:
    """Something that takes space: what it is, a class for its colour, and its size in bytes."""

    name: str
    kind: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A part and its rectangle."""

    part: Part
    x: float
    y: float
    width: float
    height: float

    @property
    def label(self) -> str:
        """The part's name if it fits, else the beginning of it, or nothing."""
        room = int((self.width - 10) / _CHARACTER)
        if self.height < _LINE + 4 or room < 3:
            return ""
        return self.part.name if len(self.part.name) <= room else f"{self.part.name[: room - 1]}…"

    @property
    def has_second_line(self) -> bool:
        """Whether the size fits below the name."""
        return bool(self.label) and self.height >= 2 * _LINE + 6 and self.width >= 72


def tiles(parts: Sequence[Part], *, width: float = WIDTH, height: float = HEIGHT) -> tuple[Tile, ...]:
    """Lay the parts out, the largest first; parts without a size are left out."""
    wanted = sorted((part for part in parts if part.size > 0), key=lambda part: (-part.size, part.name))
    total = sum(part.size for part in wanted)
    return tuple(_laid_out(wanted, width * height / total, (0.0, 0.0, width, height))) if total else ()


def _laid_out(parts: list[Part], scale: float, room: tuple[float, float, float, float]) -> Iterator[Tile]:
    """Fill rows along the shorter side, each with as many parts as make its worst tile squarer."""
    while parts:
        x, y, width, height = room
        side = min(width, height)
        count = 1
        while count < len(parts) and _worst(parts[: count + 1], scale, side) <= _worst(parts[:count], scale, side):
            count += 1
        row, parts = parts[:count], parts[count:]
        depth = sum(part.size for part in row) * scale / side if side else 0.0
        offset = 0.0
        for part in row:
            length = part.size * scale / depth if depth else 0.0
            if width >= height:
                yield Tile(part=part, x=x, y=y + offset, width=depth, height=length)
            else:
                yield Tile(part=part, x=x + offset, y=y, width=length, height=depth)
            offset += length
        room = (x + depth, y, width - depth, height) if width >= height else (x, y + depth, width, height - depth)


def _worst(row: Sequence[Part], scale: float, side: float) -> float:
    """The largest ratio of sides in a row along a side."""
    areas = [part.size * scale for part in row]
    total = sum(areas)
    if not total or not side:
        return float("inf")
    return max(side * side * max(areas) / total**2, total**2 / (side * side * min(areas)))
