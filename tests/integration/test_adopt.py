"""The diff of `builder ci adopt`, applied with git and patch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from builder.gitlab.adopt.adopt import adopt
from builder.gitlab.adopt.file import parse_gitlab_file
from builder.gitlab.adopt.pipeline import Pipeline
from builder.matrix.file import parse_matrix
from tests.gitlab import MATRIX, WAYS

pytestmark = pytest.mark.integration

ENDS: Mapping[str, Callable[[str], str]] = {
    "lf": lambda text: text,
    "crlf": lambda text: text.replace("\n", "\r\n"),
    "no-last-end": lambda text: text.removesuffix("\n"),
    "cache-last": lambda text: f"{text}\nlast:\n  extends: lint\n  script: uv sync\n  cache: {{paths: [.venv]}}",
    "umlauts": lambda text: f"# Läuft überall wie gebaut\n{text}",
}


@pytest.mark.parametrize("program", [["git", "apply"], ["patch", "--binary", "-s", "-p1"]], ids=["git", "patch"])
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("way", WAYS)
def test_diff_gives_exactly_the_text(way: str, ends: str, program: list[str], tmp_path: Path) -> None:
    """Broken: the diff does not apply, or its result differs from the adopted file."""
    text = ENDS[ends](WAYS[way])
    path = tmp_path / "in a folder/.gitlab-ci.yml"
    path.parent.mkdir()
    path.write_bytes(text.encode())
    (tmp_path / "matrix.toml").write_text(MATRIX, encoding="utf-8")
    command = [sys.executable, "-m", "builder", "ci", "adopt", str(path.relative_to(tmp_path))]
    diff = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout
    subprocess.run(program, cwd=tmp_path, check=True, input=diff)
    pipeline = Pipeline(files=(parse_gitlab_file(text, source="x"),))
    expected = adopt(pipeline, parse_matrix(MATRIX, source="matrix.toml")).files[0].text
    assert expected != text
    assert path.read_bytes() == expected.encode()


@pytest.mark.parametrize("program", [["git", "apply"], ["patch", "--binary", "-s", "-p1"]], ids=["git", "patch"])
def test_diff_with_new_files(program: list[str], tmp_path: Path) -> None:
    """Broken: without a matrix, the diff does not add one, or adopting again changes something."""
    (tmp_path / "uv.lock").write_text("", encoding="utf-8")
    (tmp_path / ".gitlab-ci.yml").write_text(WAYS["uv-cache"], encoding="utf-8")
    command = [sys.executable, "-m", "builder", "ci", "adopt"]
    diff = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout
    subprocess.run(program, cwd=tmp_path, check=True, input=diff)
    template = Path(__file__).parents[2] / "templates/prebuilt.yml"
    assert (tmp_path / ".gitlab/prebuilt.yml").read_bytes() == template.read_bytes()
    assert 'python = ["3.12"]' in (tmp_path / "matrix.toml").read_text(encoding="utf-8")
    again = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert again.stdout == b""
