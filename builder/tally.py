"""How much of a step is done: parts and bytes, in words."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Tally:
    """Counts the done parts of a step, and their bytes; threads can share it."""

    title: str
    parts: int
    size: int
    _done: int = 0
    _bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, size: int) -> str:
        """Count one more part of this size; return the title with what is done: `compress 3/31, 12/189 MB`."""
        with self._lock:
            self._done += 1
            self._bytes += size
            return f"{self.title} {self._done}/{self.parts}, {self._bytes / 1e6:.0f}/{self.size / 1e6:.0f} MB"
