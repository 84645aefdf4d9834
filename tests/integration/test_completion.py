"""Completion in a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = """
set -eu
eval "$(builder completion bash)"
COMP_WORDS=(builder $1) COMP_CWORD=$2 COMPREPLY=()
_builder_completion builder
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
@pytest.mark.parametrize(
    ("words", "completed"),
    [("co", ["completion"]), ("plan --pl", ["--platform"]), ("completion f", ["fish"])],
)
def test_bash_completes(words: str, completed: list[str]) -> None:
    """Broken: `eval "$(builder completion bash)"` gives an error, or a tab completes nothing."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    argv = ["bash", "-c", _SCRIPT, "bash", words, str(len(words.split()))]
    done = subprocess.run(argv, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout.splitlines()) == (0, "", completed)
