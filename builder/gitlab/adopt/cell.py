"""Find the cell of the matrix that replaces a Python image, whose name may have variables anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from builder.errors import listed
from builder.gitlab.adopt.image import NO_PYTHON, OFFICIAL_TAG, UV_TAG, PythonImage, Refusal, parse_image
from builder.gitlab.adopt.job import expand, variables_in
from builder.matrix.facts import NEWEST_PYTHON, OLDEST_PYTHON
from builder.matrix.file import BUILT_IN_NAME
from builder.matrix.model import Cell, Matrix
from builder.matrix.schema import DEFAULT_PROFILE, Coordinates


@dataclass(frozen=True, kw_only=True)
class Replacement:
    """The image to write, the variables that it no longer expands, and remarks about it.

    `slimmer` are the cells that replace a full image but may lack what that has.
    """

    image: str
    dropped_variables: frozenset[str]
    notes: tuple[str, ...]
    slimmer: tuple[Cell, ...]


def find_replacement(
    template: str, variable_sets: Sequence[Mapping[str, str]], matrix: Matrix, repository: str, newest: str = ""
) -> Replacement | Refusal | None:
    """The image of a cell to use for a template, given the values of its variables; None if it is not a Python image.

    A variable in the tag is kept if its values match the cells' names; otherwise, the tag is written without it. A name
    without a Python version, such as `python:latest`, stands for `newest`, or else for the only Python of the matrix.
    """
    cells: list[Cell] = []
    slimmer: dict[Cell, None] = {}
    notes: dict[str, None] = {}
    for variables in variable_sets:
        tag = parse_image(expand(template, variables), matrix)
        if tag is None or isinstance(tag, Refusal):
            return tag
        cell = _find_cell(tag, matrix, template, newest)
        if isinstance(cell, Refusal):
            return cell
        cells.append(cell)
        if tag.is_full and "slim" in _words(cell.base) | _tag_words(cell):
            slimmer[cell] = None
        if note := _difference(tag, cell):
            notes[note] = None
    pieces = _pieces(template)
    python = _kept(pieces.get("python"), variable_sets, [cell.python for cell in cells])
    base = _kept(pieces.get("base"), variable_sets, [cell.base for cell in cells])
    if python is None or base is None:
        names = listed(sorted({cell.name for cell in cells}))
        return Refusal(
            reason=f"{template}: its variables do not match the names of the cells {names}; "
            "use one variable for the Python version and one for the base"
        )
    image = f"{repository}:{Coordinates(python, base, cells[0].profile).name}"
    dropped = frozenset(variables_in(template) - variables_in(image))
    return Replacement(image=image, dropped_variables=dropped, notes=tuple(notes), slimmer=tuple(slimmer))


def _find_cell(tag: PythonImage, matrix: Matrix, template: str, newest: str) -> Cell | Refusal:
    """The cell whose image replaces the one with this tag; with profiles, one of what [install] chooses if there is."""
    cells = [cell for cell in matrix.cells if cell.profile == DEFAULT_PROFILE] or matrix.cells
    pythons = {cell.python for cell in cells}
    python = tag.python or newest or (pythons.pop() if len(pythons) == 1 else "")
    if not python:
        return Refusal(reason=f"{template} {NO_PYTHON}")
    minor = ".".join(python.split(".")[:2])
    of_python = [cell for cell in cells if cell.python == python] or [
        cell for cell in cells if cell.python == minor or cell.python.startswith(f"{python}.")
    ]
    if matrix.source == BUILT_IN_NAME:  # because nothing could be proposed
        known = f"Python 3.{OLDEST_PYTHON} to 3.{NEWEST_PYTHON}, on Debian bullseye and later, or on Alpine"
        return Refusal(reason=f"{template}: builder knows {known}; for other bases, write a matrix")
    if not of_python:
        return Refusal(
            reason=f'{template}: no cell of {matrix.source} has Python {minor}; add "{minor}" to its python list'
        )
    same = [cell for cell in of_python if _words(cell.base) == tag.words or _tag_words(cell) == tag.words]
    near = [
        cell for cell in of_python if cell.family == tag.family and tag.releases <= _words(cell.base) | _tag_words(cell)
    ]
    for choice in (same, near):
        if len(choice) == 1:
            return choice[0]
        if choice:
            return Refusal(
                reason=f"{template}: several cells match ({listed([cell.name for cell in choice])}); set one by hand"
            )
    return Refusal(
        reason=f"{template}: no cell of {matrix.source} with Python {minor} has a matching base; "
        f"add one to base and [bases] (cells: {listed([cell.name for cell in of_python])})"
    )  # fmt: skip


def _words(base: str) -> frozenset[str]:
    return frozenset(base.split("-"))


def _tag_words(cell: Cell) -> frozenset[str]:
    return frozenset((cell.image.tag or "").split("-")) - {cell.python, f"python{cell.python}"}


def _difference(tag: PythonImage, cell: Cell) -> str:
    """A remark on how the cell differs from the image; empty if it does not."""
    if not tag.python:
        return f"an image without a Python version in its name becomes {cell.name}"
    if tag.words not in {_words(cell.base), _tag_words(cell)}:
        base = f"-{tag.base}" if tag.base else " without a base in its name"
        is_slimmer = tag.is_full and "slim" in _words(cell.base) | _tag_words(cell)
        slim = "; add git, compilers and other tools to its packages if jobs need them" if is_slimmer else ""
        return (
            f"{tag.python}{base} becomes {cell.name}, the only cell with this Python and family ({cell.family}){slim}"
        )
    if tag.python != cell.python:
        return f"Python {tag.python} becomes the cell {cell.name}"
    return ""


def _pieces(template: str) -> Mapping[str, str]:
    """The parts of a template's tag that stand for Python and base, if the tag can be split into them."""
    tag = template.rpartition(":")[2]
    match = UV_TAG.fullmatch(tag) or OFFICIAL_TAG.fullmatch(tag)
    return {name: value for name, value in match.groupdict().items() if value} if match else {}


def _kept(piece: str | None, variable_sets: Sequence[Mapping[str, str]], values: Sequence[str]) -> str | None:
    """The piece itself if it expands to the right value every time; else the only value; None if there are several."""
    if piece and variables_in(piece) and [expand(piece, variables) for variables in variable_sets] == list(values):
        return piece
    return values[0] if len(set(values)) == 1 else None
