"""The lock and the matrix of the working directory, or of the nearest folder above it that has one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from builder.errors import LockError, MatrixError
from builder.lock.foreign import advice_in
from builder.lock.uv import workspace_root
from builder.matrix.file import PROJECT_FILE, TABLE, has_matrix

MATRIX_NAME: Final = "matrix.toml"
LOCK_NAMES: Final = ("uv.lock", "pylock.toml", "requirements.txt")


def find_matrix() -> Path | None:
    """The matrix of this folder or the nearest one above it; None if there is none.

    It is a `matrix.toml`, or the pyproject.toml that contains it; raise MatrixError if a folder has both.
    """
    return next((found for folder in _folders_upwards() if (found := matrix_in(folder))), None)


def matrix_in(folder: Path) -> Path | None:
    """The file in a folder that is or contains a matrix; None if there is none. Raises MatrixError if there are two."""
    alone, project = folder / MATRIX_NAME, folder / PROJECT_FILE
    is_alone, is_embedded = alone.exists(), has_matrix(project)
    if is_alone and is_embedded:
        raise MatrixError(
            f"there are two matrices: {alone}, and {TABLE} in {project}",
            hint="remove one of the two, or name the one to use with -f",
        )
    return alone if is_alone else project if is_embedded else None


def find_lock() -> Path:
    """The lock of this folder or the nearest one above it; raise LockError if there is none."""
    lock = nearest_lock()
    if lock is None:
        raise LockError(
            f"no lock file in this folder ({', '.join(LOCK_NAMES)}), nor in those above it",
            hint=advice_in(Path()) or "name it with --lock; `uv lock` writes one",
        )
    return lock


def nearest_lock() -> Path | None:
    """The lock of this folder or the nearest one above it; like uv, in a workspace member the workspace's.

    The search ends at a project without a lock, so that nobody gets the lock of another project around it.
    """
    for folder in _folders_upwards():
        found = next((folder / name for name in LOCK_NAMES if (folder / name).exists()), None)
        if found and found.name != "uv.lock":
            return found
        root = workspace_root(folder) if (folder / "pyproject.toml").is_file() else None
        if root and (root / "uv.lock").is_file():
            return Path(os.path.relpath(root)) / "uv.lock"
        if found or root:
            return found
    return None


def _folders_upwards() -> list[Path]:
    """The working directory and those above it, as relative paths, nearest first."""
    return [Path(*[".."] * depth) for depth in range(len(Path.cwd().parts))]
