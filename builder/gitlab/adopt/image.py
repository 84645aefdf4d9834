"""Image names of Python jobs, as people write them in `image:`, and the cells of a matrix that take their place.

Known are the official images (`python:3.12-slim-bookworm`) and uv's (`ghcr.io/astral-sh/uv:0.9-python3.12-alpine`),
also through GitLab's dependency proxy or a mirror, with variables anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from builder.errors import listed
from builder.gitlab.adopt.job import expand, variables_in
from builder.matrix.model import Cell, Matrix

_PREFIX: Final = (
    r"(?:\$\{?CI_DEPENDENCY_PROXY(?:_DIRECT)?_GROUP_IMAGE_PREFIX\}?/|\S+/dependency_proxy/containers/"
    r"|(?:[\w-]+(?:\.[\w-]+)+(?::\d+)?|[\w-]+:\d+|localhost)/(?:\S+/(?=library/|ghcr\.io/|docker\.io/|astral-sh/))?)?"
)
_OFFICIAL: Final = rf"{_PREFIX}(?:docker\.io/)?(?:library/)?python"
_UV: Final = rf"{_PREFIX}(?:ghcr\.io/)?(?:astral-sh|astral)/uv"
_NAME: Final = re.compile(rf"(?:(?P<official>{_OFFICIAL})|(?P<uv>{_UV}))(?::(?P<tag>[^@/]*))?(?P<digest>@\S+)?")
_RESEMBLES: Final = re.compile(r"python|\buv\b", re.IGNORECASE)
_VARIABLE: Final = r"\$\{\w+\}|\$\w+"
_VERSION: Final = rf"(?P<python>(?:{_VARIABLE}|[0-9.])+)"
_OFFICIAL_TAG: Final = re.compile(rf"{_VERSION}(?:-(?P<base>\S+))?")
_UV_TAG: Final = re.compile(rf"(?:(?:{_VARIABLE}|[0-9.]+)-)?python{_VERSION}(?:-(?P<base>\S+))?")
_PYTHON: Final = re.compile(r"3\.[0-9]+(?:\.[0-9]+)?")
_ALPINE: Final = re.compile(r"alpine[0-9.]*")


@dataclass(frozen=True, kw_only=True)
class Replacement:
    """The image to write, the variables that it no longer names, and what is to be said of it."""

    image: str
    freed: frozenset[str]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why an image is left as it is, and what to do."""

    why: str


@dataclass(frozen=True, kw_only=True)
class _Tag:
    """A Python version, and the words behind it, such as slim, bookworm, alpine."""

    python: str
    base: str

    @property
    def words(self) -> frozenset[str]:
        return frozenset(self.base.split("-")) - {""}

    @property
    def family(self) -> str:
        return "alpine" if any(_ALPINE.fullmatch(word) for word in self.words) else "debian"


def replacement(
    template: str, environments: Sequence[Mapping[str, str]], matrix: Matrix, repository: str
) -> Replacement | Refusal | None:
    """The image of a cell for a template, in each environment that it is expanded in; None where it has no Python.

    A variable stays in the tag where its values are what the cells' names have in its place; else the tag is written
    out.
    """
    cells: list[Cell] = []
    notes: dict[str, None] = {}
    for environment in environments:
        found = _tag(_at_home(expand(template, environment), matrix))
        if found is None or isinstance(found, Refusal):
            return found
        cell = _cell(found, matrix, template)
        if isinstance(cell, Refusal):
            return cell
        cells.append(cell)
        if note := _difference(found, cell):
            notes[note] = None
    pieces = _pieces(template)
    python = _kept(pieces.get("python"), environments, [cell.python for cell in cells])
    base = _kept(pieces.get("base"), environments, [cell.base for cell in cells])
    if python is None or base is None:
        names = listed(sorted({cell.name for cell in cells}))
        return Refusal(
            why=f"{template}: its variables have several values that are not those of the cells {names}; "
            "name Python and base in variables of their own, as the cells do"
        )
    image = f"{repository}:{python}-{base}"
    return Replacement(image=image, freed=frozenset(variables_in(template) - variables_in(image)), notes=tuple(notes))


def _at_home(text: str, matrix: Matrix) -> str:
    """The name of an image at its own registry, where the matrix knows the mirror that it is written with."""
    for registry, mirror in matrix.mirrors.table:
        if text.startswith(f"{mirror}/"):
            return f"{registry}{text.removeprefix(mirror)}"
    return text


def _tag(text: str) -> _Tag | Refusal | None:
    """What an expanded image name says of Python and base."""
    name = _NAME.fullmatch(text)
    unknown = sorted(variables_in(name["tag"] or "" if name else text))
    if unknown or "$[[" in text:
        what = f"${unknown[0]} is not set in this file" if unknown else "it has an input of a component"
        return Refusal(why=f"{text}: {what}") if name or _RESEMBLES.search(text) else None
    if name is None:
        return None
    if name["digest"]:
        return Refusal(why=f"{text} is pinned by digest; pin the baked image in its place by hand")
    found = (_UV_TAG if name["uv"] else _OFFICIAL_TAG).fullmatch(name["tag"] or "")
    if not found or not _PYTHON.fullmatch(found["python"]):
        return Refusal(why=f"{text} names no Python version such as 3.12; write the image of a cell by hand")
    return _Tag(python=found["python"], base=found["base"] or "")


def _cell(tag: _Tag, matrix: Matrix, template: str) -> Cell | Refusal:
    """The cell that takes the place of an image."""
    minor = ".".join(tag.python.split(".")[:2])
    of_python = [cell for cell in matrix.cells if cell.python == tag.python] or [
        cell for cell in matrix.cells if cell.python == minor or cell.python.startswith(f"{tag.python}.")
    ]
    if not of_python:
        return Refusal(why=f'{template}: no cell of {matrix.source} has Python {minor}; add "{minor}" to its python')
    same = [cell for cell in of_python if _words(cell.base) == tag.words or _tag_words(cell) == tag.words]
    near = [
        cell
        for cell in of_python
        if cell.family == tag.family and _releases(tag) <= _words(cell.base) | _tag_words(cell)
    ]
    for choice in (same, near):
        if len(choice) == 1:
            return choice[0]
        if choice:
            return Refusal(
                why=f"{template}: several cells would do: {listed([cell.name for cell in choice])}; write one"
            )
    return Refusal(
        why=f"{template}: no cell of {matrix.source} with Python {minor} has such a base; "
        f"add one under [bases] and in base (cells: {listed([cell.name for cell in of_python])})"
    )  # fmt: skip


def _words(base: str) -> frozenset[str]:
    return frozenset(base.split("-"))


def _tag_words(cell: Cell) -> frozenset[str]:
    return frozenset((cell.image.tag or "").split("-")) - {cell.python, f"python{cell.python}"}


def _releases(tag: _Tag) -> frozenset[str]:
    """The words that name a release of a distribution, which a cell must have too; any Alpine will do."""
    return frozenset(word for word in tag.words if word != "slim" and not _ALPINE.fullmatch(word))


def _difference(tag: _Tag, cell: Cell) -> str:
    """What is to be said where a cell is not quite what the image was."""
    if tag.words not in {_words(cell.base), _tag_words(cell)}:
        was = f"-{tag.base}" if tag.base else " without a base in its name"
        slim = "; git, compilers and the like go into its packages" if _is_slimmer(tag, cell) else ""
        return f"{tag.python}{was} becomes {cell.name}, the one cell of this Python and family ({cell.family}){slim}"
    if tag.python != cell.python:
        return f"Python {tag.python} becomes the cell {cell.name}"
    return ""


def _is_slimmer(tag: _Tag, cell: Cell) -> bool:
    """Whether an image of a whole distribution gives way to a slim one."""
    return tag.family == "debian" and "slim" not in tag.words and "slim" in _words(cell.base) | _tag_words(cell)


def _pieces(template: str) -> Mapping[str, str]:
    """The parts of a template's tag that stand for Python and base, where they can be told apart."""
    tag = template.rpartition(":")[2]
    found = _UV_TAG.fullmatch(tag) or _OFFICIAL_TAG.fullmatch(tag)
    return {name: value for name, value in found.groupdict().items() if value} if found else {}


def _kept(piece: str | None, environments: Sequence[Mapping[str, str]], values: Sequence[str]) -> str | None:
    """The piece itself where it expands to the value in each environment; else the one value; None for several."""
    if piece and variables_in(piece) and [expand(piece, each) for each in environments] == list(values):
        return piece
    return values[0] if len(set(values)) == 1 else None
