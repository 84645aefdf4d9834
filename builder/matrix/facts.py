"""Facts about distributions and Pythons that age; they stand in facts.toml, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import tomli

_TABLE: Final[Mapping[str, Mapping[str, str]]] = tomli.loads(
    Path(__file__).with_name("facts.toml").read_text(encoding="utf-8")
)

GLIBC: Final = _TABLE["glibc"]  # version by Debian or Ubuntu release, as image names spell it
MUSL: Final = _TABLE["musl"]["alpine"]

# The minor releases of Python 3 that a project without a matrix may get.
OLDEST_PYTHON: Final = int(_TABLE["python"]["oldest"].removeprefix("3."))
NEWEST_PYTHON: Final = int(_TABLE["python"]["newest"].removeprefix("3."))


def libc_of(image: str, family: str) -> str | None:
    """The libc version of a base image by its name; None where the name does not say a known release.

    A wheel may ask for this version and older ones (PEP 600 and 656).
    """
    if family == "alpine":
        return MUSL
    return next((glibc for release, glibc in GLIBC.items() if release in image), None)
