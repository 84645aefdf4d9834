"""The lock of a project that builder would bake: which file it is, or how to write one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from builder.gitlab.adopt.program import read_inside

_DEEPEST: Final = 4  # folders below the project's that are searched
_SKIPPED: Final = re.compile(r"\..*|node_modules|venv|env|site-packages|__pycache__")
_LOCK: Final = re.compile(
    r"(?:.*/)?(?:uv\.lock|pylock(?:\.[^./]+)?\.toml|[^/]*requirements[^/]*\.txt|requirements/[^/]+\.txt)"
)
_LOCK_ORDER: Final = ("lock", "toml", "txt")
# Files of other tools, and what makes a lock for builder from them.
_WRITTEN_FROM: Final = (
    ("poetry.lock", "requirements.txt", "poetry export --with dev -o requirements.txt"),
    ("pdm.lock", "pylock.toml", "pdm export -f pylock -o pylock.toml"),
    ("Pipfile.lock", "requirements.txt", "pipenv requirements --dev --hash > requirements.txt"),
    (
        "requirements.txt",
        "requirements-lock.txt",
        "uv pip compile --generate-hashes requirements.txt -o requirements-lock.txt",
    ),
    ("pyproject.toml", "uv.lock", "uv lock"),
)


@dataclass(frozen=True, kw_only=True)
class ProjectLock:
    """A lock relative to the project; `command` writes it if there is none; `others` are those of other folders."""

    path: str
    command: str = ""
    others: tuple[str, ...] = ()


def find_project_lock(folder: Path) -> ProjectLock:
    """The lock in the project's own folder, or else in one below it; of several, that of uv, then PEP 751, then pip."""
    found = sorted(
        _locks(folder), key=lambda path: (path.count("/"), not path.endswith("uv.lock"), "pylock" not in path, path)
    )
    if found:
        others = [path for path in found[1:] if path.rpartition("/")[0] != found[0].rpartition("/")[0]]
        return ProjectLock(path=found[0], others=tuple(others))
    for name, path, command in _WRITTEN_FROM:
        if (folder / name).is_file():
            return ProjectLock(path=path, command=command)
    return ProjectLock(path="uv.lock", command="uv lock")


def _locks(folder: Path) -> Iterator[str]:
    for at, folders, names in os.walk(folder):
        below = Path(at).relative_to(folder)
        folders[:] = (
            sorted(name for name in folders if not _SKIPPED.fullmatch(name)) if len(below.parts) < _DEEPEST else []
        )
        for name in names:
            path = (below / name).as_posix()
            if _LOCK.fullmatch(path) and (not name.endswith(".txt") or "--hash=" in read_inside(folder / path, folder)):
                yield path
