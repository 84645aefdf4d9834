"""Progress on stderr: a live line per cell on a terminal, otherwise a line per event."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
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
    """Shows the events of a run on stderr; a context manager."""

    def __init__(self, cells: Sequence[str], *, progress: ProgressMode, quiet: bool) -> None:
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._state: dict[str, tuple[str, str, float]] = dict.fromkeys(cells, ("build", "waiting", 0.0))
        self._console = Console(stderr=True, highlight=False)
        self._quiet = quiet
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
            repeated = self._state[event.cell][:2] == (event.stage, text)
            self._state[event.cell] = (event.stage, text, elapsed)
            if not self._live and not self._quiet and not repeated:
                self._console.out(f"{elapsed:6.1f}s  {event.cell}  {event.stage:<6}  {text}")

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        now = time.monotonic() - self._started
        with self._lock:
            for cell, (stage, text, since) in self._state.items():
                colour = {"done": "green" if "failed" not in text else "red", "verify": "cyan"}.get(stage, "yellow")
                seconds = since if stage == "done" else now
                table.add_row(cell, Text(stage, style=colour), Text(text), f"{seconds:.0f} s")
        return table


def is_interactive(console: Console) -> bool:
    """Whether the console is a terminal, and neither NO_COLOR nor CI is set."""
    return console.is_terminal and not os.environ.get("NO_COLOR") and not os.environ.get("CI")
