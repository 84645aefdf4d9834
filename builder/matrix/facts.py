"""Facts about distributions and Pythons that age; facts.toml is the only place that has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import tomli

_TABLE: Final[Mapping[str, Mapping[str, str]]] = tomli.loads(
    Path(__file__).with_name("facts.toml").read_text(encoding="utf-8")
)

GLIBC: Final = _TABLE["glibc"]  # version by Debian or Ubuntu release, spelled as in image names
MUSL: Final = _TABLE["musl"]["alpine"]

# The range of Python 3 minor releases from which a project without a matrix gets one.
OLDEST_PYTHON: Final = int(_TABLE["python"]["oldest"].removeprefix("3."))
NEWEST_PYTHON: Final = int(_TABLE["python"]["newest"].removeprefix("3."))


def libc_of(image: str, family: str) -> str | None:
    """The libc version of a base image, judged by its name; None if the name contains no known release.

    The image can install wheels that require this version or an older one (PEP 600 and 656).
    """
    if family == "alpine":
        return MUSL
    return next((glibc for release, glibc in GLIBC.items() if release in image), None)
