"""What is wrong with packages of the lock, at their lines in it, as GitLab's Code Quality report.

The format is a part of Code Climate's: https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from packaging.utils import canonicalize_name

from builder.lock.preflight import Finding, Preflight
from builder.redaction import redact

Severity = Literal["info", "minor", "major", "critical", "blocker"]
_TABLE: Final = re.compile(r'^name = "(?P<name>[^"]+)"')  # uv.lock, pylock.toml
_PIN: Final = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(?:==|@)")  # requirements.txt


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A problem with a package in some cells, and the line of the lock, from 1, that it is about."""

    check: str
    severity: Severity
    text: str
    path: str
    line: int

    @property
    def table(self) -> dict[str, Any]:
        """The issue in the form of Code Climate; the fingerprint stays when the line moves."""
        fingerprint = hashlib.sha256(f"{self.check}\0{self.path}\0{self.text}".encode()).hexdigest()
        return {
            "type": "issue",
            "check_name": self.check,
            "description": self.text,
            "categories": ["Compatibility"],
            "severity": self.severity,
            "fingerprint": fingerprint,
            "location": {"path": self.path, "lines": {"begin": self.line}},
        }


def problems(found: Preflight, lock: Path, path: str) -> tuple[Problem, ...]:
    """The problems of all cells, those that several cells share once. `path` is the lock's from the repository's top.

    A package that is built from source because it comes from git, or has no wheel, is one: each build costs time, and
    may need system packages.
    """
    lines = _lines_of(lock)
    shared: dict[tuple[str | None, str, Severity, str], list[str]] = {}
    for checked in found.cells:
        for finding in checked.findings:
            for check, severity, text in _judged(finding):
                shared.setdefault((finding.name, check, severity, text), []).append(checked.cell.name)
    return tuple(
        Problem(
            check=check, severity=severity, path=path, line=lines.get(name or "", 1),
            text=redact(f"{text} ({', '.join(cells)})"),
        )
        for (name, check, severity, text), cells in shared.items()
    )  # fmt: skip


def _judged(finding: Finding) -> Iterator[tuple[str, Severity, str]]:
    package = f"{finding.name} {finding.version or ''}".strip() if finding.name else "the lock"
    if finding.way == "impossible":
        yield "not-installable", "blocker", f"{package} cannot be installed: {finding.reason}"
    elif finding.way == "build" and finding.missing:
        needs = ", ".join(finding.missing)
        yield "no-wheel", "major", f"{package} is built from source: {finding.reason}; the base lacks {needs}"
    elif finding.way == "build":
        yield "no-wheel", "minor", f"{package} is built from source: {finding.reason}"
    if finding.is_yanked:
        yield "yanked", "minor", f"{package} was yanked from the index"


def _lines_of(lock: Path) -> dict[str, int]:
    """The line of each package in a lock."""
    lines: dict[str, int] = {}
    for number, line in enumerate(lock.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if match := _TABLE.match(line) or _PIN.match(line):
            lines.setdefault(canonicalize_name(match["name"]), number)
    return lines
