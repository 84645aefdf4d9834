"""`builder ci adopt`: its remarks are short, grouped, and in the order of their importance."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adopting import run_adopt_files
from tests.commandline import builder


def test_remarks_in_brief(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: remarks fill the screen, so that nobody sees which jobs were left alone."""
    jobs = "".join(f"job{number}:\n  image: node:22\n  script: uv sync --all-extras\n" for number in range(30))
    long = "a-very-long-name-of-a-registry.example/with/a/long/path/to/an/image/of/somebody/that/nobody/knows"
    text = f"{jobs}long:\n  image: {long}:1\n  script: uv sync\nnew:\n  image: python:3.12\n  script: uv sync\n"
    full = run_adopt_files(tmp_path, monkeypatch, {".gitlab-ci.yml": text}).stderr.splitlines()
    brief = builder("ci", "adopt").stderr.splitlines()
    assert len(full) == 33
    assert brief[0] == ".gitlab-ci.yml:2: job0 (+29): left alone: node:22 is not a Python image that builder knows"
    assert brief[1] == f".gitlab-ci.yml:92: long: left alone: {long}"[:119] + "…"
    assert "new: 3.12 without a base in its name becomes 3.12-bookworm-slim" in brief[2]
    assert max(map(len, brief)) == 120
