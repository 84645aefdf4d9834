"""Progress without a terminal: one plain line per event, or none with -q."""

from __future__ import annotations

import re

import pytest
from rich.console import Console

from builder.cli.output.live import Display, ProgressMode, is_interactive
from builder.run import ProgressEvent

EVENTS = [
    ProgressEvent(cell="3.12-slim", stage="build", text="copy uv"),
    ProgressEvent(cell="3.12-slim", stage="build", text="copy uv"),
    ProgressEvent(cell="3.12-alpine", stage="verify", text="[red]uv-pip"),
    ProgressEvent(cell="3.12-slim", stage="done", text="verified"),
]


def shown(capsys: pytest.CaptureFixture[str], *, progress: ProgressMode, quiet: bool = False) -> str:
    """The output on stderr after the events; stdout must stay empty."""
    with Display(["3.12-slim", "3.12-alpine"], progress=progress, quiet=quiet) as display:
        for event in EVENTS:
            display.show(event)
    out, err = capsys.readouterr()
    assert out == ""
    return err


@pytest.mark.parametrize("progress", ["plain", "auto"])
def test_plain_lines(capsys: pytest.CaptureFixture[str], progress: ProgressMode) -> None:
    """Broken: a CI log has control characters, repeated lines, or no progress."""
    lines = [re.sub(r"^ *\d+\.\ds  ", "", line) for line in shown(capsys, progress=progress).splitlines()]
    assert lines == [
        "3.12-slim  build   copy uv",
        "3.12-alpine  verify  [red]uv-pip",
        "3.12-slim  done    verified",
    ]


@pytest.mark.parametrize("progress", ["plain", "auto", "tty"])
def test_quiet(capsys: pytest.CaptureFixture[str], progress: ProgressMode) -> None:
    """Broken: -q prints progress."""
    assert shown(capsys, progress=progress, quiet=True) == ""


def test_last_picture_of_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Broken: users at a terminal do not see the outcome of each cell."""
    said = shown(capsys, progress="tty")
    assert "verified" in said
    assert "3.12-alpine" in said


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("CI", "true")])
def test_nobody_watches_in_ci(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """Broken: NO_COLOR or CI is ignored."""
    console = Console(force_terminal=True)
    assert is_interactive(console)
    monkeypatch.setenv(variable, value)
    assert not is_interactive(console)
