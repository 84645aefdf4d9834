"""What people see: a live line per cell, plain lines where nobody watches, tables, and the JSON of plans and builds."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from builder.command import redact
from builder.pipeline import CellResult, News
from builder.render import RenderedImage
from builder.verify import Check

Progress = Literal["auto", "plain", "tty"]


class Display:
    """Shows the news of a run on stderr; a context manager."""

    def __init__(self, cells: Sequence[str], *, progress: Progress, quiet: bool) -> None:
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._state: dict[str, tuple[str, str, float]] = dict.fromkeys(cells, ("build", "waiting", 0.0))
        self._console = Console(stderr=True, highlight=False)
        self._quiet = quiet
        live = progress == "tty" or (progress == "auto" and is_for_people(self._console))
        self._live = (
            Live(get_renderable=self._table, console=self._console, refresh_per_second=8)
            if live and not quiet
            else None
        )

    def __enter__(self) -> Display:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, news: News) -> None:
        """Take one piece of news, from any thread."""
        elapsed = time.monotonic() - self._started
        with self._lock:
            repeated = self._state[news.cell][:2] == (news.stage, news.text)
            self._state[news.cell] = (news.stage, news.text, elapsed)
            if not self._live and not self._quiet and not repeated:
                self._console.out(f"{elapsed:6.1f}s  {news.cell}  {news.stage:<6}  {news.text}")

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        now = time.monotonic() - self._started
        with self._lock:
            for cell, (stage, text, since) in self._state.items():
                colour = {"done": "green" if "failed" not in text else "red", "verify": "cyan"}.get(stage, "yellow")
                seconds = since if stage == "done" else now
                table.add_row(cell, Text(stage, style=colour), text, f"{seconds:.0f} s")
        return table


def is_for_people(console: Console) -> bool:
    """Whether somebody watches: a terminal, and neither NO_COLOR nor CI says otherwise."""
    return console.is_terminal and not os.environ.get("NO_COLOR") and not os.environ.get("CI")


def complain(error: BaseException) -> None:
    """Print an error to stderr: what, where, and what to do, and nothing secret."""
    print(f"builder: {redact(str(error))}", file=sys.stderr)  # noqa: T201


def say(text: str) -> None:
    """Tell a part of the story, on stderr."""
    print(redact(text), file=sys.stderr)  # noqa: T201


def plan_table(rendered: Sequence[RenderedImage]) -> str:
    """The plan as text: per cell packages, download, sources, key and tags."""
    lines = []
    for each in rendered:
        selection = each.plan.selection
        sources = [package.name for package in selection.packages if package.artifact != "wheel"]
        download = "unknown size" if selection.download_size is None else megabytes(selection.download_size)
        kinds = f"{len(selection.packages) - len(sources)} wheels"
        kinds += f", {len(sources)} to be built from source ({', '.join(sources)})" if sources else ""
        lines += [
            each.plan.cell.name,
            f"  packages   {len(selection.packages)}: {kinds}",
            f"  download   {download}",
            f"  base       {each.plan.base.familiar}",
            f"  uv         {each.plan.uv.familiar}",
            f"  key        {each.key}",
            *(f"  {'tags' if number == 0 else '':<10} {tag.familiar}" for number, tag in enumerate(each.tags)),
        ]
    return "\n".join(lines)


def checks_table(checks: Sequence[Check]) -> str:
    """The checks as text, a line each."""
    return "\n".join(f"{check.verdict:<8}{check.name:<22}{check.seconds:6.2f} s  {check.evidence}" for check in checks)


def megabytes(size: int) -> str:
    """A size in bytes as people read it."""
    return f"{size / 1e6:.1f} MB"


def plan_json(rendered: Sequence[RenderedImage]) -> dict[str, Any]:
    """The documented shape of `builder plan --json` (docs/json.md)."""
    return {"cells": [cell_json(each) for each in rendered]}


def cell_json(rendered: RenderedImage) -> dict[str, Any]:
    """One cell of a plan."""
    plan = rendered.plan
    return {
        "name": plan.cell.name,
        "python": plan.cell.python,
        "base": plan.cell.base,
        "platform": str(plan.cell.platform),
        "key": rendered.key,
        "tags": [tag.familiar for tag in rendered.tags],
        "base_image": plan.base.familiar,
        "uv_image": plan.uv.familiar,
        "download_size": plan.selection.download_size,
        "packages": [
            {
                "name": package.name,
                "version": package.version,
                "artifact": package.artifact,
                "file": package.filename,
                "size": package.size,
            }
            for package in plan.selection.packages
        ],
    }


def build_json(results: Sequence[CellResult]) -> dict[str, Any]:
    """The documented shape of `builder build --json` (docs/json.md): a plan's cells and how each ended."""
    return {"cells": [cell_json(result.rendered) | _outcome_json(result) for result in results]}


def _outcome_json(result: CellResult) -> dict[str, Any]:
    return {
        "outcome": result.outcome,
        "digest": str(result.built.digest) if result.built else None,
        "size": result.built.size if result.built else None,
        "seconds": round(result.seconds, 3),
        "checks": [check_json(check) for check in result.checks],
        "log": str(result.log),
        "error": redact(str(result.error)) if result.error else None,
    }


def check_json(check: Check) -> dict[str, Any]:
    """One check of `build --json` and `verify --json`."""
    return {
        "name": check.name,
        "verdict": check.verdict,
        "evidence": redact(check.evidence),
        "seconds": check.seconds,
    }
