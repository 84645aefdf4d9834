"""Lines of what a program prints, told from a thread while it runs; nothing that they lead to is needed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

_LAST_LINES: Final = 1.0  # seconds for what was printed at the end
_PAUSE: Final = 0.2  # seconds between looks at a file

OnLine = Callable[[str], None]


@contextlib.contextmanager
def followed(opened: Callable[[], Iterable[bytes]], on_line: OnLine) -> Iterator[None]:
    """Tell the lines of a stream, which ends when the program does, until the block ends."""
    ended = threading.Event()

    def follow() -> None:
        rest = b""
        with contextlib.suppress(Exception):  # progress is worth no error
            for piece in opened():
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    if not ended.is_set():
                        on_line(line.decode(errors="replace"))

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        follower.join(_LAST_LINES)
        ended.set()


@contextlib.contextmanager
def followed_file(path: Path, on_line: OnLine) -> Iterator[None]:
    """Tell the lines of a file, which need not exist yet, until the block ends."""
    ended = threading.Event()

    def follow() -> None:
        position = 0
        while not ended.wait(_PAUSE):
            with contextlib.suppress(OSError), path.open("rb") as file:
                file.seek(position)
                *lines, _ = file.read().split(b"\n")
                position += sum(len(line) + 1 for line in lines)
                for line in lines:
                    on_line(line.decode(errors="replace"))

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join()
