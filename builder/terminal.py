"""A terminal of its own for a program in other namespaces, where this one's process groups have no numbers."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from typing import Final

_PIECE: Final = 1 << 16
_LAST_OUTPUT: Final = 1.0  # seconds for what was printed at the end, if something keeps the terminal open


@contextlib.contextmanager
def own_terminal() -> Iterator[int]:
    """Yield the descriptor of a new terminal; until the block ends, this one shows it, and what is typed goes there.

    This process's stdin and stdout must be a terminal.
    """
    here, there = sys.stdin.fileno(), sys.stdout.fileno()
    ours, theirs = os.openpty()
    wake, waking = os.pipe()
    before = termios.tcgetattr(here)
    _resize(there, ours)
    previous = signal.signal(signal.SIGWINCH, lambda *_: _resize(there, ours))
    relay = threading.Thread(target=_relay, args=(here, there, ours, wake), daemon=True)
    tty.setraw(here)
    relay.start()
    try:
        yield theirs
    finally:
        os.close(theirs)
        relay.join(_LAST_OUTPUT)
        os.write(waking, b".")
        relay.join()
        termios.tcsetattr(here, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, previous)
        for descriptor in (ours, wake, waking):
            os.close(descriptor)


def _resize(source: int, target: int) -> None:
    size = fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(8))
    fcntl.ioctl(target, termios.TIOCSWINSZ, size)


def _relay(here: int, there: int, ours: int, wake: int) -> None:
    """Copy both ways until nothing has the other end open, or until woken."""
    sources = [ours, wake, here]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if wake in ready:
            return
        if here in ready:
            typed = os.read(here, _PIECE)
            if typed:
                _write(ours, typed)
            else:
                sources.remove(here)
        if ours in ready:
            try:
                _write(there, os.read(ours, _PIECE))
            except OSError:  # all others have closed it
                return


def _write(target: int, content: bytes) -> None:
    while content:
        content = content[os.write(target, content) :]
