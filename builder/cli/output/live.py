"""Progress on stderr: a live line per cell on a terminal, otherwise a line per event."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Literal

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from builder.cli.output.messages import printable
from builder.run import ProgressEvent

ProgressMode = Literal["auto", "plain", "tty"]


class Display:
    """Shows the events of a run on stderr; a context manager.

    `expected` has the seconds that each cell took when it was made last, 0 if that is unknown.
    """

    def __init__(self, expected: Mapping[str, float], *, progress: ProgressMode, quiet: bool) -> None:
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._state: dict[str, tuple[str, str, float]] = dict.fromkeys(expected, ("build", "waiting", 0.0))
        self._console = Console(stderr=True, highlight=False)
        self._quiet = quiet
        self._expected = expected
        live = progress == "tty" or (progress == "auto" and is_interactive(self._console))
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

    def show(self, event: ProgressEvent) -> None:
        """Show an event; may be called from any thread."""
        elapsed = time.monotonic() - self._started
        with self._lock:
            text = printable(event.text)
            # A log has a line for each step, not for each megabyte of it.
            before = self._state[event.cell]
            repeated = before[0] == event.stage and _without_counts(before[1]) == _without_counts(text)
            self._state[event.cell] = (event.stage, text, elapsed)
            if not self._live and not self._quiet and not repeated:
                self._console.out(f"{elapsed:6.1f}s  {event.cell}  {event.stage:<6}  {text}")

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for column in range(5):  # one line a cell, whatever the width: the step gives way, not its counts
            table.add_column(no_wrap=True, overflow="ellipsis", ratio=1 if column == 2 else None)
        table.expand = True
        now = time.monotonic() - self._started
        with self._lock:
            for cell, (stage, text, since) in self._state.items():
                colour = {"done": "green" if "failed" not in text else "red", "verify": "cyan"}.get(stage, "yellow")
                seconds = f"{since:.0f} s" if stage == "done" else _estimated(now, self._expected[cell])
                step = _without_counts(text)
                counts = text.removeprefix(step).strip()
                table.add_row(cell, Text(f"{stage:<6}", style=colour), Text(step), Text(counts), f"{seconds:>16}")
        return table


def _estimated(seconds: float, expected: float) -> str:
    """The seconds so far, and of how many, if that is known and not exceeded yet."""
    return f"{seconds:.0f} of ~{expected:.0f} s" if seconds <= expected else f"{seconds:.0f} s"


def _without_counts(text: str) -> str:
    """The step without the counts at its end."""
    return re.sub(r"( [\d.,/]+( MB)?,?)+$", "", text)


def is_interactive(console: Console) -> bool:
    """Whether the console is a terminal that can redraw lines, and neither NO_COLOR nor CI is set."""
    redraws = console.is_terminal and not console.is_dumb_terminal
    return redraws and not os.environ.get("NO_COLOR") and not os.environ.get("CI")
