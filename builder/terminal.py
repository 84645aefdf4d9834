"""What people see: a live line per cell, plain lines where nobody watches, tables, and the JSON of plans and builds."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Literal

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from builder.command import redact
from builder.diff import Difference
from builder.pipeline import CellResult, News, Publication, Status
from builder.promote import Move
from builder.render import RenderedImage
from builder.standing import Standing, State
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


def plan_table(rendered: Sequence[RenderedImage], statuses: Mapping[str, Status] | None = None) -> str:
    """The plan as text: per cell packages, download, sources, key and tags, and how it stands at the registry."""
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
            *_status_lines((statuses or {}).get(each.plan.cell.name)),
        ]
    return "\n".join(lines)


_STATES: Final[Mapping[State, str]] = {
    "up-to-date": "up to date",
    "to-promote": "built; its tags are to be moved",
    "moved": "to be built, for an input moved",
    "new": "to be built, for there is none yet",
}


def _status_lines(status: Status | None) -> list[str]:
    if status is None:
        return []
    return [f"  status     {_STATES[status.state]}", *(f"             {reason}" for reason in status.reasons)]


def dry_run_table(rendered: Sequence[RenderedImage], standing: Sequence[Standing], which: str) -> str:
    """What a run would do, a line each: build and push, move tags; without standings it pushes nothing."""
    if not standing:
        return "\n".join(f"build  {each.moving_tags[0].familiar}" for each in rendered)
    lines = [f"build and push  {each.rendered.immutable_tag.familiar}" for each in standing if each.digest is None]
    for each in standing if which != "none" else ():
        repository = each.rendered.plan.repository
        for tag, now in each.moving.items():
            if each.digest is None or now != each.digest:
                to = each.digest or "what is built"
                lines.append(f"move            {repository.with_tag(tag).familiar}: {now or 'nothing'} → {to}")
    return "\n".join(lines) or "nothing to do: every cell is up to date"


def promotion_lines(done: Publication) -> list[str]:
    """The end of a run that pushes, for stderr: which tags moved."""
    if done.promotion is None:
        if any(result.error for result in done.results):
            return ["builder: no moving tag was moved"]
        if all(result.outcome == "up-to-date" for result in done.results):
            return [f"builder: nothing to do: {len(done.results)} cells are up to date"]
        return ["builder: no moving tag was moved"]
    return [f"moved  {move.tag}: {move.old or 'nothing'} → {move.new}" for move in done.promotion.moves]


def diff_table(found: Difference) -> str:
    """A difference as text: only what differs, and the bytes that a machine with the old image pulls."""
    lines = [f"{found.old.name}", f"→ {found.new.name}"]
    for title, moves in _diff_parts(found).items():
        lines += [f"  {title}", *(f"    {move}" for move in moves)] if moves else []
    if found.new_bytes is not None and found.shared_bytes is not None:
        lines.append(f"  layers     {megabytes(found.shared_bytes)} shared, {megabytes(found.new_bytes)} new")
    return "\n".join(lines) if len(lines) > 2 else "\n".join([*lines, "  no difference"])


def _diff_parts(found: Difference) -> dict[str, tuple[str, ...]]:
    return {
        "python": found.python,
        "base": found.base,
        "uv": found.uv,
        "packages": found.packages,
        "system packages": found.system,
        "settings": found.settings,
    }


def diff_json(found: Difference) -> dict[str, Any]:
    """The documented shape of `builder diff --json` (docs/json.md)."""
    sides = {"old": found.old.name, "new": found.new.name}
    parts = {title.replace(" ", "_"): list(moves) for title, moves in _diff_parts(found).items()}
    return (
        sides
        | parts
        | {"layers": _layers_json(found), "shared_bytes": found.shared_bytes, "new_bytes": found.new_bytes}
    )


def _layers_json(found: Difference) -> list[dict[str, Any]]:
    old = found.old.layers or {}
    return [
        {"digest": digest, "size": size, "shared": digest in old} for digest, size in (found.new.layers or {}).items()
    ]


def checks_table(checks: Sequence[Check]) -> str:
    """The checks as text, a line each."""
    return "\n".join(f"{check.verdict:<8}{check.name:<22}{check.seconds:6.2f} s  {check.evidence}" for check in checks)


def megabytes(size: int) -> str:
    """A size in bytes as people read it."""
    return f"{size / 1e6:.1f} MB"


def plan_json(rendered: Sequence[RenderedImage], statuses: Mapping[str, Status] | None = None) -> dict[str, Any]:
    """The documented shape of `builder plan --json` (docs/json.md)."""
    return {"cells": [cell_json(each) | _status_json((statuses or {}).get(each.plan.cell.name)) for each in rendered]}


def _status_json(status: Status | None) -> dict[str, Any]:
    return {"status": status.state if status else None, "reasons": list(status.reasons) if status else []}


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


def build_json(done: Publication) -> dict[str, Any]:
    """The documented shape of `builder build --json` (docs/json.md): a plan's cells and how each ended."""
    return {
        "cells": [cell_json(result.rendered) | _outcome_json(result) for result in done.results],
        "promotion": [_move_json(move) for move in done.promotion.moves] if done.promotion else [],
    }


def _move_json(move: Move) -> dict[str, Any]:
    return {"tag": move.tag, "old": str(move.old) if move.old else None, "new": str(move.new) if move.new else None}


def _outcome_json(result: CellResult) -> dict[str, Any]:
    return {
        "outcome": result.outcome,
        "digest": _digest(result),
        "size": result.built.size if result.built else None,
        "seconds": round(result.seconds, 3),
        "checks": [check_json(check) for check in result.checks],
        "log": str(result.log) if result.log else None,
        "error": redact(str(result.error)) if result.error else None,
    }


def _digest(result: CellResult) -> str | None:
    made = result.published or result.built
    return str(made.digest) if made else None


def check_json(check: Check) -> dict[str, Any]:
    """One check of `build --json` and `verify --json`."""
    return {
        "name": check.name,
        "verdict": check.verdict,
        "evidence": redact(check.evidence),
        "seconds": check.seconds,
    }
