"""The outcome of a run as Markdown, for GitHub's step summary and for people who open the job's files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from builder.redaction import redact
from builder.reports.code_quality import Problem
from builder.reports.facts import CellFacts

_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]<>()#+!|~&$@])")
_MOST: Final = 50  # changes of a cell


def summary_markdown(facts: Sequence[CellFacts], problems: Sequence[Problem]) -> str:
    """A table of the cells, then what failed, what changed in each cell, and what is wrong with packages."""
    lines = ["## Images", ""]
    lines += [
        "| cell | outcome | image | packages | size | new | seconds | checks |",
        "|---|---|---|--:|--:|--:|--:|---|",
    ]
    lines += [_row(each) for each in facts]
    for each in facts:
        lines += _details(each)
    if problems:
        lines += ["", "## Packages", ""]
        lines += [f"- {escaped(each.text)} ({escaped(each.path)}:{each.line})" for each in problems]
    return "\n".join(lines) + "\n"


def _row(facts: CellFacts) -> str:
    failed = [check.name for check in facts.checks if check.verdict == "failed"]
    passed = sum(check.verdict == "passed" for check in facts.checks)
    checks = f"failed: {', '.join(failed)}" if failed else f"{passed} passed" if facts.checks else ""
    texts = (
        facts.name,
        facts.result.outcome,
        facts.image.familiar if facts.image else "",
        str(len(facts.rendered.plan.selection.packages)),
        _megabytes(facts.size),
        _megabytes(facts.new_size),
        f"{facts.result.seconds:.1f}" if facts.result.seconds else "",
        checks,
    )
    return f"| {' | '.join(map(escaped, texts))} |"


def _details(facts: CellFacts) -> Iterator[str]:
    if facts.result.error:
        yield from ("", f"### {escaped(facts.name)} failed", "", *_quoted(redact(str(facts.result.error))))
    if facts.changes:
        yield from ("", f"### {escaped(facts.name)}: what changed", "")
        yield from (f"- {escaped(redact(change))}" for change in facts.changes[:_MOST])
        if len(facts.changes) > _MOST:
            yield f"- and {len(facts.changes) - _MOST} more"


def _quoted(text: str) -> Iterable[str]:
    return (f"    {line}" for line in text.splitlines())  # as code: nothing in it is markup


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.1f} MB"


def escaped(text: str) -> str:
    """The text on one line, without anything that Markdown or HTML would understand."""
    printable = "".join(each if each.isprintable() else " " for each in text)
    return _SPECIAL.sub(r"\\\1", " ".join(printable.split()))
