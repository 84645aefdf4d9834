"""The fixture that runs `builder ci adopt`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adopting import Adopt, applied, assert_valid, run_adopt
from tests.gitlab import MATRIX


@pytest.fixture
def adopt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Adopt:
    """Adopt a text: return the changed lines of the diff, without context, and the remarks."""

    def run(text: str, matrix: str = MATRIX) -> tuple[str, str]:
        ended = run_adopt(tmp_path, monkeypatch, text, matrix)
        assert ended.exit_code == 0, ended.stderr
        lines = ended.stdout.splitlines(keepends=True)
        assert "".join(lines[:2]) in {"", "--- a/.gitlab-ci.yml\n+++ b/.gitlab-ci.yml\n"}
        assert_valid(text, applied(text, ended.stdout))
        return "".join(line for line in lines[2:] if line[0] in "+-"), ended.stderr

    return run
