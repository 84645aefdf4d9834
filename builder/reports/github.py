"""Workflow commands: lines from which GitHub makes annotations at lines of files.

See https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from builder.redaction import redact
from builder.reports.code_quality import Problem, Severity
from builder.reports.facts import CellFacts

_LEVELS: Final[Mapping[Severity, str]] = {
    "info": "notice", "minor": "notice", "major": "warning", "critical": "error", "blocker": "error",
}  # fmt: skip


def commands(facts: Sequence[CellFacts], problems: Sequence[Problem]) -> Iterator[str]:
    """An error for each cell that failed, and a line for each problem."""
    for each in facts:
        if each.result.error:
            yield _command("error", redact(str(each.result.error)), title=each.name)
    for problem in problems:
        yield _command(
            _LEVELS[problem.severity], problem.text, file=problem.path, line=str(problem.line), title=problem.check
        )


def _command(level: str, message: str, **properties: str) -> str:
    listed = ",".join(f"{name}={_encoded(value, more=':,')}" for name, value in properties.items())
    return f"::{level} {listed}::{_encoded(message)}"


def _encoded(text: str, *, more: str = "") -> str:
    """What would end a property or the command, percent-encoded."""
    return "".join(f"%{ord(each):02X}" if each in f"%\r\n{more}" else each for each in text)
