"""Facts about distributions and Pythons that age; facts.toml and families.toml are the only places that have them."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Final

import tomli

_TABLE: Final[Mapping[str, Mapping[str, str]]] = tomli.loads(
    Path(__file__).with_name("facts.toml").read_text(encoding="utf-8")
)

_FAMILIES: Final[Mapping[str, Mapping[str, str]]] = tomli.loads(
    Path(__file__).with_name("families.toml").read_text(encoding="utf-8")
)
OS_RELEASE: Final = _FAMILIES["os-release"]  # families by the ids that /etc/os-release names

GLIBC: Final = _TABLE["glibc"]  # version by Debian or Ubuntu release, spelled as in image names
MUSL: Final = _TABLE["musl"]["alpine"]

# The range of Python 3 minor releases from which a project without a matrix gets one.
OLDEST_PYTHON: Final = int(_TABLE["python"]["oldest"].removeprefix("3."))
NEWEST_PYTHON: Final = int(_TABLE["python"]["newest"].removeprefix("3."))


def family_of(image: str) -> str | None:
    """The family of a base image's distribution, judged by its name; None if the name tells none."""
    words: Mapping[str, str] = {**_FAMILIES["family"], **dict.fromkeys(GLIBC, "debian")}
    return next((family for word, family in words.items() if word in image), None)


def near_release(image: str) -> str:
    """The release that the name of an image seems to mean but misspells; '' if there is none."""
    words = image.rpartition(":")[2].split("-")
    close = (get_close_matches(word, list(GLIBC), n=1, cutoff=0.75) for word in words if word not in {*GLIBC, "slim"})
    return next((match[0] for match in close if match), "")


def libc_of(image: str, family: str) -> str | None:
    """The libc version of a base image, judged by its name; None if the name contains no known release.

    The image can install wheels that require this version or an older one (PEP 600 and 656).
    """
    if family == "alpine":
        return MUSL
    known = {**GLIBC, **_FAMILIES["glibc"]}
    return next((known[release] for release in sorted(known, key=len, reverse=True) if release in image), None)
