"""Find the cell of the matrix that replaces a Python image in `image:`.

Known images are the official ones (`python:3.12-slim-bookworm`) and uv's (`ghcr.io/astral-sh/uv:python3.12-alpine`),
also through GitLab's dependency proxy or a mirror, and with variables anywhere in the name.
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
    """The image to write, the variables that it no longer expands, and remarks about it."""

    image: str
    dropped_variables: frozenset[str]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why an image is left alone, and what to do instead."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class _Tag:
    """The Python version in a tag, and the words after it, such as slim, bookworm, alpine."""

    python: str
    base: str

    @property
    def words(self) -> frozenset[str]:
        return frozenset(self.base.split("-")) - {""}

    @property
    def family(self) -> str:
        return "alpine" if any(_ALPINE.fullmatch(word) for word in self.words) else "debian"


def find_replacement(
    template: str, variable_sets: Sequence[Mapping[str, str]], matrix: Matrix, repository: str
) -> Replacement | Refusal | None:
    """The image of a cell to use for a template, given the values of its variables; None if it is not a Python image.

    A variable in the tag is kept if its values match the cells' names; otherwise, the tag is written without it.
    """
    cells: list[Cell] = []
    notes: dict[str, None] = {}
    for variables in variable_sets:
        tag = _parse(_without_mirror(expand(template, variables), matrix))
        if tag is None or isinstance(tag, Refusal):
            return tag
        cell = _find_cell(tag, matrix, template)
        if isinstance(cell, Refusal):
            return cell
        cells.append(cell)
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
    image = f"{repository}:{python}-{base}"
    dropped = frozenset(variables_in(template) - variables_in(image))
    return Replacement(image=image, dropped_variables=dropped, notes=tuple(notes))


def _without_mirror(text: str, matrix: Matrix) -> str:
    """The image name with its original registry, if it uses a mirror that the matrix defines."""
    for registry, mirror in matrix.mirrors.table:
        if text.startswith(f"{mirror}/"):
            return f"{registry}{text.removeprefix(mirror)}"
    return text


def _parse(text: str) -> _Tag | Refusal | None:
    """The Python version and base in an expanded image name; None if it is not a Python image."""
    name = _NAME.fullmatch(text)
    unknown = sorted(variables_in(name["tag"] or "" if name else text))
    if unknown or "$[[" in text:
        reason = f"${unknown[0]} is not set in this file" if unknown else "it contains a component input"
        return Refusal(reason=f"{text}: {reason}") if name or _RESEMBLES.search(text) else None
    if name is None:
        return None
    if name["digest"]:
        return Refusal(reason=f"{text} is pinned by digest; replace it with a pinned baked image by hand")
    tag = (_UV_TAG if name["uv"] else _OFFICIAL_TAG).fullmatch(name["tag"] or "")
    if not tag or not _PYTHON.fullmatch(tag["python"]):
        return Refusal(reason=f"{text} does not contain a Python version such as 3.12; set the image of a cell by hand")
    return _Tag(python=tag["python"], base=tag["base"] or "")


def _find_cell(tag: _Tag, matrix: Matrix, template: str) -> Cell | Refusal:
    """The cell whose image replaces the one with this tag."""
    minor = ".".join(tag.python.split(".")[:2])
    of_python = [cell for cell in matrix.cells if cell.python == tag.python] or [
        cell for cell in matrix.cells if cell.python == minor or cell.python.startswith(f"{tag.python}.")
    ]
    if not of_python:
        return Refusal(
            reason=f'{template}: no cell of {matrix.source} has Python {minor}; add "{minor}" to its python list'
        )
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


def _releases(tag: _Tag) -> frozenset[str]:
    """The words that name a distribution release, which the cell must have too; any Alpine release matches."""
    return frozenset(word for word in tag.words if word != "slim" and not _ALPINE.fullmatch(word))


def _difference(tag: _Tag, cell: Cell) -> str:
    """A remark on how the cell differs from the image; empty if it does not."""
    if tag.words not in {_words(cell.base), _tag_words(cell)}:
        base = f"-{tag.base}" if tag.base else " without a base in its name"
        slim = (
            "; add git, compilers and other tools to its packages if jobs need them" if _is_slimmer(tag, cell) else ""
        )
        return (
            f"{tag.python}{base} becomes {cell.name}, the only cell with this Python and family ({cell.family}){slim}"
        )
    if tag.python != cell.python:
        return f"Python {tag.python} becomes the cell {cell.name}"
    return ""


def _is_slimmer(tag: _Tag, cell: Cell) -> bool:
    """Whether a full image is replaced by a slim one."""
    return tag.family == "debian" and "slim" not in tag.words and "slim" in _words(cell.base) | _tag_words(cell)


def _pieces(template: str) -> Mapping[str, str]:
    """The parts of a template's tag that stand for Python and base, if the tag can be split into them."""
    tag = template.rpartition(":")[2]
    match = _UV_TAG.fullmatch(tag) or _OFFICIAL_TAG.fullmatch(tag)
    return {name: value for name, value in match.groupdict().items() if value} if match else {}


def _kept(piece: str | None, variable_sets: Sequence[Mapping[str, str]], values: Sequence[str]) -> str | None:
    """The piece itself if it expands to the right value every time; else the only value; None if there are several."""
    if piece and variables_in(piece) and [expand(piece, variables) for variables in variable_sets] == list(values):
        return piece
    return values[0] if len(set(values)) == 1 else None
