"""The wheel works where it is installed, without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.integration


def test_installed_elsewhere(tmp_path: Path) -> None:
    """Broken: the wheel lacks templates or probes, or finds them only in a checkout."""
    folder = tmp_path / "site"
    argv = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(argv, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("prebuilt-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    project = tmp_path / "project"
    project.mkdir()
    (project / "pylock.toml").write_text('lock-version = "1.0"\ncreated-by = "hand"\npackages = []\n')
    (project / ".python-version").write_text("3.13\n")
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}
    where = subprocess.run(
        [sys.executable, "-c", "import builder; print(builder.__file__)"],
        cwd=project, env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(folder))
    rendered = [sys.executable, "-m", "builder", "render", "--output", "contexts"]
    subprocess.run(rendered, cwd=project, env=environment, check=True, capture_output=True)
    dockerfile = (project / "contexts" / "3.13-bookworm-slim" / "Dockerfile").read_text()
    assert dockerfile.startswith("# 3.13-bookworm-slim for linux/")
    assert (folder / "builder" / "verify" / "probes" / "bytecode.py").is_file()
    assert (folder / "builder" / "pages" / "templates" / "style.css").is_file()
