"""Files of other tools that people take for a lock, and the command that makes one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from builder.errors import listed


@dataclass(frozen=True, kw_only=True)
class ForeignFile:
    """A file that builder cannot install from: what it is, and what to do instead."""

    what: str
    instead: str


_MIGRATE: Final = "or move the project to uv with `uvx migrate-to-uv`, which keeps the locked versions"
_POETRY: Final = ForeignFile(
    what="a lock of Poetry",
    instead=f"run `poetry export --output requirements.txt` (with its plugin poetry-plugin-export), {_MIGRATE}",
)
_PIPENV: Final = ForeignFile(
    what="a file of Pipenv", instead=f"run `pipenv requirements --hash > requirements.txt`, {_MIGRATE}"
)
_PDM: Final = ForeignFile(what="a lock of PDM", instead="run `pdm export --output requirements.txt`")
_CONDA: Final = ForeignFile(
    what="a file of conda, whose packages are not those of a Python index",
    instead="list the packages that jobs need in a requirements.in, and run "
    "`uv pip compile --generate-hashes requirements.in --output-file requirements.txt`",
)
_UNLOCKED: Final = ForeignFile(
    what="no lock, because it does not pin what it requires",
    instead="run `uv pip compile --generate-hashes {name} --output-file requirements.txt`",
)
_RYE: Final = ForeignFile(
    what="a file of Rye, without hashes",
    instead="move the project to uv, which has taken Rye's place: run `uv lock`",
)
_SCRIPT: Final = ForeignFile(
    what="a script, and no lock",
    instead="run `uv lock --script {name}`, and name {name}.lock",
)
_PYPROJECT: Final = ForeignFile(what="no lock, because it does not pin what it requires", instead="run `uv lock`")

FOREIGN_FILES: Final[Mapping[str, ForeignFile]] = {
    "poetry.lock": _POETRY,
    "Pipfile.lock": _PIPENV,
    "Pipfile": _PIPENV,
    "pdm.lock": _PDM,
    "environment.yml": _CONDA,
    "environment.yaml": _CONDA,
    "conda-lock.yml": _CONDA,
    "pixi.lock": _CONDA,
    "setup.py": _UNLOCKED,
    "setup.cfg": _UNLOCKED,
    "requirements.in": _UNLOCKED,
    "requirements.lock": _RYE,
    "requirements-dev.lock": _RYE,
    "pyproject.toml": _PYPROJECT,
}
# Names of which projects have several.
_PATTERNS: Final[Mapping[str, ForeignFile]] = {
    "environment*.y*ml": _CONDA, "env.y*ml": _CONDA, "conda*.lock": _CONDA, "*.py": _SCRIPT,
}  # fmt: skip
_LOCK_PATTERNS: Final = ("pylock.*.toml", "*requirements*.txt", "requirements/*.txt", "*.py.lock")


def advice_for(path: Path) -> str | None:
    """What the file is and what to do instead, as one text; None if builder does not know the file."""
    name = path.name.lower()
    known = {each.lower(): foreign for each, foreign in FOREIGN_FILES.items()}
    foreign = known.get(name) or next((each for pattern, each in _PATTERNS.items() if fnmatch(name, pattern)), None)
    return f"{path} is {foreign.what}: {foreign.instead.format(name=path.name)}" if foreign else None


def advice_in(folder: Path) -> str | None:
    """The advice for the first known file in the folder, or for what may be its locks; None if there is none."""
    locks = sorted({str(path) for pattern in _LOCK_PATTERNS for path in folder.glob(pattern) if path.is_file()})
    if locks:
        return f"name one with --lock, such as {listed(locks, most=3)}"
    return next((advice_for(folder / name) for name in FOREIGN_FILES if (folder / name).is_file()), None)
