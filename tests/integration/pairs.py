"""The projects of `examples/gitlab`: copied, locked now, and with one of their two pipelines in place."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Literal

from pypi_simple import PYPI_SIMPLE_ENDPOINT
from uv import find_uv_bin

PAIRS = Path(__file__).parents[2] / "examples" / "gitlab"
PUBLIC_IMAGES = (
    "python:3.13-slim-bookworm",
    "ghcr.io/astral-sh/uv:0.13.8-python3.13-bookworm-slim",
    "ghcr.io/astral-sh/uv:0.13.8-python3.13-alpine",
)

_COMPILE = ("pip", "compile", "--quiet", "--universal", "--python-version=3.13", "--generate-hashes")
_LOCAL = shutil.ignore_patterns(
    ".venv", ".gitlab-ci-local", "uv.lock", "poetry.lock", "requirements.txt", "__pycache__", ".*_cache"
)


def locked(name: str, into: Path) -> Path:
    """Copy a project into a folder and lock it there: uv.lock, or from a requirements.in requirements.txt."""
    folder = into / name
    shutil.copytree(PAIRS / name, folder, ignore=_LOCAL)
    if "[tool.poetry" in _text(folder / "pyproject.toml"):
        _lock_by_poetry(folder)
        return folder
    argv = ["lock", "--quiet"]
    if (folder / "requirements.in").exists():
        argv = [*_COMPILE, "--no-emit-index-url", "requirements.in", "--output-file=requirements.txt"]
    subprocess.run([find_uv_bin(), *argv], cwd=folder, check=True, capture_output=True)
    return folder


def _lock_by_poetry(folder: Path) -> None:
    """Lock with Poetry, and export that for builder; Poetry asks the index that uv and pip ask."""
    with (folder / "pyproject.toml").open("a", encoding="utf-8") as pyproject:
        pyproject.write(f'\n[[tool.poetry.source]]\nname = "index"\nurl = "{PYPI_SIMPLE_ENDPOINT}"\n')
    poetry = [find_uv_bin(), "tool", "run", "--quiet", "--with", "poetry-plugin-export", "poetry"]
    export = ["export", "--with", "dev", "--without-urls", "--output", "requirements.txt"]
    for command in (["lock"], export):
        subprocess.run([*poetry, *command], cwd=folder, check=True, capture_output=True)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def lock_of(folder: Path) -> str:
    """The file that `builder build --lock` is given."""
    return "uv.lock" if (folder / "uv.lock").exists() else "requirements.txt"


def take(folder: Path, which: Literal["before", "after"]) -> None:
    """Make one of the two the project's `.gitlab-ci.yml`."""
    shutil.copy(folder / f"{which}.gitlab-ci.yml", folder / ".gitlab-ci.yml")
