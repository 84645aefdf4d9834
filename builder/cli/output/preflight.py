"""The preflight of a plan as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from builder.lock.host import Host
from builder.lock.preflight import CheckedCell, Finding, Preflight

_SHOWN: Final = 40  # rows; the JSON has all


def preflight_text(found: Preflight, hosts: Sequence[Host]) -> str:
    """A table of the packages that not every cell installs from a wheel, what they need, and the hosts."""
    lines = [*_table(found.cells), *_needs(found.cells), *_yanked(found.cells)]
    if hosts:
        lines.append("hosts: " + ", ".join(map(_host, hosts)))
    return "\n".join(lines)


def _table(cells: Sequence[CheckedCell]) -> Iterator[str]:
    """A row for each such package and a column for each cell; a dot where a cell does not install the package."""
    ways = {
        (_titled(finding), checked.cell.name): finding.way
        for checked in cells for finding in checked.findings if finding.name
    }  # fmt: skip
    titles = sorted({title for (title, _), way in ways.items() if way != "wheel"})
    if not titles:
        return
    names = [checked.cell.name for checked in cells]
    width = max(map(len, titles))
    yield " ".join([" " * width, *names])
    for title in titles[:_SHOWN]:
        yield " ".join(
            [f"{title:<{width}}", *(f"{ways.get((title, name), '·'):<{len(name)}}" for name in names)]
        ).rstrip()
    if len(titles) > _SHOWN:
        yield f"and {len(titles) - _SHOWN} more; --json lists them"


def _needs(cells: Sequence[CheckedCell]) -> Iterator[str]:
    """What each base lacks for builds from source."""
    needs: dict[tuple[str, str, str, tuple[str, ...]], None] = {}
    for checked in cells:
        for finding in checked.findings:
            if finding.way == "build":
                needs[checked.cell.base, _titled(finding), finding.reason, finding.missing] = None
    for base, title, reason, missing in needs:
        action = f": add {', '.join(missing)} to bases.{base}.build-packages" if missing else ""
        yield f"{title} on {base} is built from source ({reason}){action}"


def _yanked(cells: Sequence[CheckedCell]) -> Iterator[str]:
    titles = {_titled(finding) for checked in cells for finding in checked.findings if finding.is_yanked}
    for title in sorted(titles):
        yield f"{title} was yanked from its index: lock another version"


def _titled(finding: Finding) -> str:
    return f"{finding.name} {finding.version or ''}".rstrip()


def _host(host: Host) -> str:
    notes = (["has a credential"] if host.has_credential else []) + ([host.answer] if host.answer else [])
    return f"{host.name} ({', '.join(notes)})" if notes else host.name


def preflight_json(found: Preflight, hosts: Sequence[Host]) -> dict[str, Any]:
    """The key `preflight` of `builder plan --json`: every package of every cell."""
    return {
        "cells": [
            {
                "name": checked.cell.name,
                "can_be_built": not checked.faults,
                "packages": [_finding_json(finding) for finding in checked.findings],
            }
            for checked in found.cells
        ],
        "hosts": [{"name": host.name, "has_credential": host.has_credential, "answer": host.answer} for host in hosts],
    }


def _finding_json(finding: Finding) -> dict[str, Any]:
    return {
        "name": finding.name,
        "version": finding.version,
        "way": finding.way,
        "reason": finding.reason,
        "missing_system_packages": list(finding.missing),
        "required_by": list(finding.required_by),
        "nearest_cells": list(finding.nearest),
        "is_yanked": finding.is_yanked,
    }
