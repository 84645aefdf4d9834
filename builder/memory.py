"""Files that are in memory alone, for programs that read a secret from a path."""

from __future__ import annotations

import atexit
import contextlib
import os
import tempfile
from pathlib import Path
from typing import IO, Final

_opened: Final[list[IO[bytes]]] = []  # until this process ends


def keep_in_memory(name: str, content: bytes) -> Path:
    """Return a path at which this process and its children can read the content until this process ends.

    On Linux it is in memory, so that a run that is killed leaves nothing; elsewhere it is a file that only the user can
    read, and that is removed at the end.
    """
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        file = open(os.memfd_create(name), "w+b")  # noqa: PTH123, SIM115 - a descriptor that stays open
        file.write(content)
        file.flush()
        _opened.append(file)
        return Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")
    descriptor, path = tempfile.mkstemp(prefix="builder-")
    atexit.register(_remove, path)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return Path(path)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.remove(path)  # noqa: PTH107 - pathlib may be gone at exit
