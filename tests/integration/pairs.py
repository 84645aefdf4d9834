"""The projects of `examples/gitlab`: copied, locked now, and with one of their two pipelines in place."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Literal

from uv import find_uv_bin

PAIRS = Path(__file__).parents[2] / "examples" / "gitlab"
PUBLIC_IMAGES = (
    "python:3.13-slim-bookworm",
    "ghcr.io/astral-sh/uv:0.13.8-python3.13-bookworm-slim",
    "ghcr.io/astral-sh/uv:0.13.8-python3.13-alpine",
)

_COMPILE = ("pip", "compile", "--quiet", "--universal", "--python-version=3.13", "--generate-hashes")
_LOCAL = shutil.ignore_patterns(".venv", ".gitlab-ci-local", "uv.lock", "requirements.txt", "__pycache__", ".*_cache")


def locked(name: str, into: Path) -> Path:
    """Copy a project into a folder and lock it there: uv.lock, or from a requirements.in requirements.txt."""
    folder = into / name
    shutil.copytree(PAIRS / name, folder, ignore=_LOCAL)
    argv = ["lock", "--quiet"]
    if (folder / "requirements.in").exists():
        argv = [*_COMPILE, "--no-emit-index-url", "requirements.in", "--output-file=requirements.txt"]
    subprocess.run([find_uv_bin(), *argv], cwd=folder, check=True, capture_output=True)
    return folder


def lock_of(folder: Path) -> str:
    """The file that `builder build --lock` is given."""
    return "uv.lock" if (folder / "uv.lock").exists() else "requirements.txt"


def take(folder: Path, which: Literal["before", "after"]) -> None:
    """Make one of the two the project's `.gitlab-ci.yml`."""
    shutil.copy(folder / f"{which}.gitlab-ci.yml", folder / ".gitlab-ci.yml")
