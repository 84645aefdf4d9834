"""Counts what a registry has got of an image, while threads send its blobs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

OnSent = Callable[[int, int], None]  # bytes that the registry has, and all


class Sent:
    """The bytes of each blob that the registry has, by digest; an attempt that is repeated counts again from nothing.

    `sizes` are those of all blobs; `on_sent` is called from any thread.
    """

    def __init__(self, sizes: Mapping[str, int], on_sent: OnSent) -> None:
        self._sizes = sizes
        self._on_sent = on_sent
        self._sent = dict.fromkeys(sizes, 0)
        self._lock = threading.Lock()

    def counter(self, digest: str) -> Callable[[int], None]:
        """What to call with the bytes of a blob that are sent by now."""
        return lambda size: self._set(digest, size)

    def done(self, digest: str) -> None:
        """The registry has the whole blob, whoever sent it."""
        self._set(digest, self._sizes[digest])

    def _set(self, digest: str, size: int) -> None:
        with self._lock:
            self._sent[digest] = size
            done = sum(self._sent.values())
        self._on_sent(done, sum(self._sizes.values()))
