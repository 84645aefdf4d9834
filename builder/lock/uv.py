"""The uv that reads locks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from uv import find_uv_bin

from builder.process import Completed, run


def run_uv(arguments: Sequence[str], folder: Path) -> Completed:
    """Run uv in a folder, without network and without UV_* variables such as UV_NO_DEV, which would change its answer.

    Paths in its output are relative to the folder.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith("UV_") and name != "VIRTUAL_ENV"}
    return run([find_uv_bin(), *arguments, "--offline", "--no-python-downloads"], env=env, cwd=folder)


def workspace_root(folder: Path) -> Path | None:
    """The folder whose `uv.lock` uv uses in this folder, as an absolute path; None if uv finds no project there."""
    # --no-config: the answer does not depend on settings, and a required-version must not prevent it.
    answer = run_uv(["workspace", "dir", "--no-config"], folder)
    return None if answer.returncode else Path(answer.stdout.strip())
