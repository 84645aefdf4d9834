"""Files of other tools that people take for a lock, and the command that makes one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final


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
    "pyproject.toml": _PYPROJECT,
}


def advice_for(path: Path) -> str | None:
    """What the file is and what to do instead, as one text; None if builder does not know the file."""
    foreign = FOREIGN_FILES.get(path.name)
    return f"{path} is {foreign.what}: {foreign.instead.format(name=path.name)}" if foreign else None


def advice_in(folder: Path) -> str | None:
    """The advice for the first known file in the folder; None if there is none."""
    return next((advice_for(folder / name) for name in FOREIGN_FILES if (folder / name).is_file()), None)
