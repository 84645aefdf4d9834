"""The programs that builder puts into images are there, and nothing else is where jobs would run it instead."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from typing import Iterator, Mapping, Optional, Sequence

PRELOAD = "/etc/ld.so.preload"  # libraries that the dynamic loader puts into every program, see ld.so(8)
SETTINGS = re.compile("(?:UV|PIP|LD)_.+|PYTHON[A-Z]+|BASH_ENV")  # variables that uv, pip, Python, ld.so and bash read
SETTINGS_FILES = (
    "/etc/uv/uv.toml",
    "/etc/xdg/uv/uv.toml",
    "~/.config/uv/uv.toml",
    "/etc/pip.conf",
    "/etc/xdg/pip/pip.conf",
    "~/.config/pip/pip.conf",
    "~/.pip/pip.conf",
    "~/.netrc",
)


def other_settings(known: Sequence[str], files: Sequence[str] = SETTINGS_FILES) -> str:
    """Tell which settings jobs find besides the known variables; only names, because the values may be secret.

    An image may have them from its base, for good reasons.
    """
    names = sorted(name for name in os.environ if SETTINGS.fullmatch(name) and name not in known)
    found = [*names, *(path for path in files if os.path.isfile(os.path.expanduser(path)))]
    return "; also set: %s" % ", ".join(found) if found else ""


def program_faults(programs: Mapping[str, Optional[str]], preload: str = PRELOAD) -> Iterator[str]:
    """Say what is wrong with the programs, each with the hash of its content, or None if any will do.

    They have their folders to themselves, but for those that everybody's programs are in.
    """
    for path, wanted in sorted(programs.items()):
        try:
            with open(path, "rb") as file:
                found = hashlib.sha256(file.read()).hexdigest()
        except OSError as error:
            yield "%s cannot be read: %s" % (path, error.strerror)
            continue
        if wanted not in (None, found):
            yield "%s is not what builder wrote" % path
        elif os.stat(path).st_mode & 0o005 != 0o005:
            yield "%s is closed to other users" % path
        if wanted:
            folder, own = os.path.split(path)
            yield from ("%s/%s belongs to nothing" % (folder, name) for name in os.listdir(folder) if name != own)
    if os.path.exists(preload) and os.path.getsize(preload):
        yield "%s is loaded into every program" % preload


def has_other_mode(path: str, model: str) -> bool:
    """Whether a file does not run that should, like its model, or runs as another user than whoever starts it."""
    if not os.path.exists(path):
        return False  # a link to nothing, as in the wheel
    own, wanted = os.stat(path).st_mode, os.stat(model).st_mode
    return bool(wanted & ~own & 0o111 or own & (stat.S_ISUID | stat.S_ISGID))
