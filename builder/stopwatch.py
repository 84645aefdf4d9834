"""Where the time of a cell goes: seconds by step, for `--timings`."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Stopwatch:
    """Adds up seconds by the name of a step, in the order in which the steps first ended; threads can share it."""

    seconds: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def measure(self, step: str) -> Iterator[None]:
        """Count the duration of a block as one of the step, even if it fails."""
        started = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[step] = self.seconds.get(step, 0.0) + time.monotonic() - started
