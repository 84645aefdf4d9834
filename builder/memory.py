"""Files that are in memory alone, for programs that read a secret from a path."""

from __future__ import annotations

import atexit
import contextlib
import os
import tempfile
from pathlib import Path


def keep_in_memory(name: str, content: bytes) -> Path:
    """Return a path at which this process and its children can read the content until this process ends.

    On Linux it is in memory, so that a run that is killed leaves nothing; elsewhere it is a file that only the user can
    read, and that is removed at the end.
    """
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        descriptor = os.memfd_create(name)  # which stays open
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
        return Path(f"/proc/{os.getpid()}/fd/{descriptor}")
    descriptor, path = tempfile.mkstemp(prefix="builder-")
    atexit.register(_remove, path)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return Path(path)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.remove(path)  # noqa: PTH107 - pathlib may be gone at exit
