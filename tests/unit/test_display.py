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
    with Display({"3.12-slim": 0.0, "3.12-alpine": 0.0}, progress=progress, quiet=quiet) as display:
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


def test_counts_are_one_step_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    """Broken: a CI log has a line for each megabyte, or not one for each step."""
    texts = ["write the layers", "write the layers 12 MB", "write the layers 96 MB", "compress the layers"]
    texts += ["compress the layers 1/31, 2/189 MB", "compress the layers 31/31, 189/189 MB", "installed 2 packages"]
    texts += ["fetch base and uv 1/45 MB", "installed 3 packages"]
    with Display({"a": 0.0}, progress="plain", quiet=False) as display:
        for text in texts:
            display.show(ProgressEvent(cell="a", stage="build", text=text))
    said = [line.split("build   ")[1] for line in capsys.readouterr().err.splitlines()]
    assert said == [
        "write the layers", "compress the layers", "installed 2 packages", "fetch base and uv 1/45 MB",
        "installed 3 packages",
    ]  # fmt: skip


def test_counts_are_seen_where_the_step_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: of a long step, an ellipsis hides how much of it is done; or a log repeats it for each check."""
    monkeypatch.setenv("COLUMNS", "70")
    display = Display({"3.12-slim": 65.0}, progress="tty", quiet=False)
    tag = "registry.example.com/a/long/path/of/groups/ci:3.12-slim-0123456789ab"
    display.show(ProgressEvent(cell="3.12-slim", stage="push", text=f"{tag} 96/189 MB"))
    console = Console(width=70, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(display._table())
    assert re.search(r"registry\.exam\S*…  96/189 MB +0 of ~65 s$", capture.get().rstrip())


def test_log_has_a_line_for_each_step_of_a_push(capsys: pytest.CaptureFixture[str]) -> None:
    """Broken: a CI log has a line for each check and each megabyte."""
    steps = [("verify", f"checks {done}/13") for done in range(14)]
    steps += [("push", "a:1"), *(("push", f"a:1 {done}/189 MB") for done in range(0, 190, 7)), ("done", "pushed")]
    with Display({"a": 0.0}, progress="plain", quiet=False) as display:
        for stage, text in steps:
            display.show(ProgressEvent(cell="a", stage=stage, text=text))  # type: ignore[arg-type]
    lines = [line.split("s  ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["a  verify  checks 0/13", "a  push    a:1", "a  done    pushed"]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_a_line_for_each_cell_at_any_width(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Broken: a long step breaks a cell's line in two, so that all lines below jump."""
    monkeypatch.setenv("COLUMNS", str(width))
    display = Display({"3.12-bookworm-slim": 65.0, "3.12-alpine": 0.0}, progress="tty", quiet=False)
    for cell in ("3.12-bookworm-slim", "3.12-alpine"):
        display.show(ProgressEvent(cell=cell, stage="build", text="compress the layers 31/31, 189/189 MB " * 5))
    console = Console(width=width, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(display._table())
    lines = capture.get().splitlines()
    assert len(lines) == 2
    assert all(len(line) <= width for line in lines)
    if width >= 80:
        assert lines[0].rstrip().endswith("0 of ~65 s")
        assert lines[1].rstrip().endswith(" 0 s")


def test_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a terminal that cannot move its cursor gets a table on top of a table."""
    monkeypatch.setenv("TERM", "dumb")
    assert not is_interactive(Console(force_terminal=True))
