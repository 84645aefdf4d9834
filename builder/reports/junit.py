"""The checks of all cells as JUnit XML: a suite for each cell, a case for its build and for each check."""

from __future__ import annotations

from collections.abc import Sequence

from builder.redaction import redact
from builder.reports.facts import CellFacts
from builder.verify.probes.report import Result, junit


def junit_xml(facts: Sequence[CellFacts]) -> bytes:
    """JUnit XML in the form of the report that the checks themselves write: see `builder.verify.probes.report`."""
    return junit({each.name: _results(each) for each in facts})


def _results(facts: CellFacts) -> list[Result]:
    error = facts.result.error
    has_failed_check = any(check.verdict == "failed" for check in facts.checks)
    build: Result = {
        "name": "build",
        "verdict": "failed" if error and not has_failed_check else "passed",
        "evidence": redact(str(error)) if error else f"{facts.result.outcome}: {facts.image or 'no image'}",
        "seconds": round(facts.result.seconds, 3),
    }
    checks: list[Result] = [
        {"name": each.name, "verdict": each.verdict, "evidence": redact(each.evidence), "seconds": each.seconds}
        for each in facts.checks
    ]
    return [build, *checks]
