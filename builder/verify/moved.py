"""Whether the lock still is what an image was built from."""

from __future__ import annotations

from builder.contract import CELL_LABEL
from builder.errors import BuilderError
from builder.image.inputs import package_changes
from builder.lock.model import Lock
from builder.lock.select import select
from builder.matrix.file import built_in_matrix
from builder.matrix.model import Cell, Matrix
from builder.verify.inside import Facts


def lock_changes(facts: Facts, matrix: Matrix | None) -> tuple[str, ...]:
    """What the lock has now that the image lacks, has otherwise, or no longer needs; empty without a checkout.

    The cell is that of the image's label, from the matrix or the built-in one. Nothing can be told if it is in neither,
    or if the lock does not cover it.
    """
    lock = facts.checkout.lock if facts.checkout else None
    cell = _cell((facts.config.labels or {}).get(CELL_LABEL, ""), matrix)
    if lock is None or cell is None:
        return ()
    now = _versions(lock, cell)
    had = {name: version or "" for name, version in facts.vouched.packages.items()}
    return tuple(package_changes(had, now)) if now is not None else ()


def _cell(name: str, matrix: Matrix | None) -> Cell | None:
    python = name.partition("-")[0]
    try:
        cells = (matrix or built_in_matrix(python)).cells
    except BuilderError:  # the label is not from this version of builder
        return None
    return next((cell for cell in cells if cell.name == name), None)


def _versions(lock: Lock, cell: Cell) -> dict[str, str] | None:
    try:
        return {package.name: package.version or "" for package in select(lock, cell).packages}
    except BuilderError:
        return None
