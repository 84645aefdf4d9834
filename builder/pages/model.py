"""What the pages show of a repository's images: values only, ready for the templates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from builder.pages.treemap import Part
from builder.release.contents import Contents
from builder.release.state import Status
from builder.verify.inside import Check


@dataclass(frozen=True, kw_only=True)
class HistoryRow:
    """A move of a tag. `changes` are those of the inputs, None if they are not known."""

    at: datetime
    by: str
    tag: str
    old: str | None
    new: str | None
    is_complete: bool
    changes: tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True)
class PublishedPage:
    """An image that a cell's tag names: what is in it, and how it was verified; `digest` is what the tag names."""

    contents: Contents
    digest: str
    made: datetime | None
    settings: Mapping[str, str]
    checks: tuple[Check, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """What takes the space: the base, foundation layers, packages, and layers of packages of unknown size."""
        packages = {package.name: package for package in self.contents.packages if package.size}
        base = sum(layer.size for layer in self.contents.layers if layer.kind == "base")
        parts = [Part(name="base image", kind="base", size=base)]
        for layer in self.contents.layers:
            known = [packages[name] for name in layer.packages if name in packages]
            kind = ("source" if layer.kind == "source" else "wheels") if layer.packages else "foundation"
            if known:
                parts += [Part(name=each.name, kind=kind, size=each.size or 0) for each in known]
            elif layer.kind != "base":
                parts.append(Part(name=", ".join(layer.packages) or layer.kind, kind=kind, size=layer.size))
        return tuple(parts)


@dataclass(frozen=True, kw_only=True)
class CellPage:
    """A cell: its tags, what the next run does with it and why, its image if there is one, and its tags' history."""

    name: str
    python: str
    column: str
    platform: str
    tags: tuple[str, ...]
    status: Status
    reasons: tuple[str, ...]
    image: PublishedPage | None
    history: tuple[HistoryRow, ...]

    @property
    def file(self) -> str:
        """The name of its page."""
        return f"cell-{self.name}.html"


@dataclass(frozen=True, kw_only=True)
class Site:
    """All pages: the repository, when they were made, its cells, and the promotions in the journal, newest first."""

    repository: str
    at: datetime
    cells: tuple[CellPage, ...]
    promotions: tuple[tuple[HistoryRow, ...], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the grid, in the order of the matrix."""
        return tuple(dict.fromkeys(cell.column for cell in self.cells))

    @property
    def rows(self) -> Mapping[str, Mapping[str, CellPage]]:
        """The cells by Python and column."""
        table: dict[str, dict[str, CellPage]] = {}
        for cell in self.cells:
            table.setdefault(cell.python, {})[cell.column] = cell
        return table

    @property
    def next_changes(self) -> Mapping[tuple[str, ...], tuple[CellPage, ...]]:
        """The cells that the next run changes, those with the same reasons together."""
        table: dict[tuple[str, ...], tuple[CellPage, ...]] = {}
        for cell in self.cells:
            if cell.status != "up-to-date":
                reasons = cell.reasons or ("there is no image yet",)
                table[reasons] = (*table.get(reasons, ()), cell)
        return table
