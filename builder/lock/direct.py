"""Requirements by URL: what a URL names in the terms of PEP 751, an archive, a wheel or a commit in git."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    parse_sdist_filename,
    parse_wheel_filename,
)

from builder.lock.url import without_credentials

_GIT: Final = "git+"
_COMMIT: Final = re.compile(r"[0-9a-fA-F]{40}")


def is_git(url: str) -> bool:
    """Whether the URL names a git repository: `git+https://…`."""
    return url.startswith(_GIT)


def commit_of(url: str) -> str:
    """The commit that a git URL is pinned to, as in `git+https://git.example/one.git@<40 digits>`; empty if to none."""
    revision = urlsplit(url).path.rpartition("@")[2]
    return revision.lower() if _COMMIT.fullmatch(revision) else ""


def hashes_in(url: str) -> Mapping[str, frozenset[str]]:
    """The hash in the fragment of a URL, as pip and uv read it: `#sha256=…`."""
    fragment = parse_qs(urlsplit(url).fragment)
    return {
        name: frozenset(map(str.lower, fragment[name])) for name in ("sha256", "sha384", "sha512") if name in fragment
    }


def name_in(url: str) -> str:
    """The project whose wheel or sdist a URL names; empty if the file name does not tell."""
    filename = unquote(urlsplit(url).path).rpartition("/")[2]
    try:
        if filename.endswith(".whl"):
            return parse_wheel_filename(filename)[0]
        return parse_sdist_filename(filename)[0]
    except (InvalidWheelFilename, InvalidSdistFilename):
        return ""


def source_table(url: str, hashes: Mapping[str, frozenset[str]]) -> dict[str, Any]:
    """The keys of a package's PEP 751 table for its URL, which gets neither a login nor a fragment."""
    parts = urlsplit(url)
    fragment = parse_qs(parts.fragment)
    inside = {"subdirectory": fragment["subdirectory"][0]} if "subdirectory" in fragment else {}
    if is_git(url):
        place = parts._replace(scheme=parts.scheme.removeprefix(_GIT), path=parts.path.rpartition("@")[0], fragment="")
        address = without_credentials(urlunsplit(place))
        return {"vcs": {"type": "git", "url": address, "commit-id": commit_of(url), **inside}}
    entry = {
        "url": without_credentials(urlunsplit(parts._replace(fragment=""))),
        "hashes": {name: min(hexes) for name, hexes in hashes.items()},
    }
    return {"wheels": [entry]} if parts.path.endswith(".whl") else {"archive": {**entry, **inside}}
