"""What is wrong with a file of this machine, in words: also where the system names no file, as when a disk is full."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from builder.folders import cache_folder

LEAST_FREE: Final = 64 << 20  # bytes; a disk with less has no room for a layer
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def failure_text(error: OSError) -> str:
    """The file and the reason. A write to an open file names none: then it is the folder whose disk is full."""
    reason = error.strerror or str(error)
    if error.errno not in _FULL:
        return f"{error.filename or 'a file of this machine'}: {reason}"
    advice = full_disk() or "free space on the disk with this file"
    return f"{error.filename}: {reason}; {advice}" if error.filename else f"{reason}: {advice}"


def full_disk(least: int = LEAST_FREE) -> str:
    """Which of builder's folders is on a full disk, and the variable that names another; '' if none is."""
    found = [
        f"{folder} has {shutil.disk_usage(folder).free >> 10} KiB left; {variable} names another folder"
        for variable, folder in _folders().items()
        if shutil.disk_usage(folder).free < least
    ]
    return "; ".join(found)


def _folders() -> Mapping[str, Path]:
    """The folders in which builder writes much, or the nearest that exist, by the variable that names another."""
    cache = cache_folder().absolute()
    nearest = next((each for each in (cache, *cache.parents) if os.access(each, os.R_OK)), Path("/"))
    return {"TMPDIR": Path(tempfile.gettempdir()), "BUILDER_CACHE_DIR": nearest}
