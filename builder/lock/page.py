"""A project's page in a package index: JSON (PEP 691) or HTML (PEP 503).

Pages list every file of every version, some thousands of them, so only the wanted ones are parsed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import requests
from packaging.utils import InvalidSdistFilename, parse_sdist_filename
from packaging.version import InvalidVersion, Version
from pydantic_core import from_json

from builder.lock.url import without_credentials

if TYPE_CHECKING:
    from pypi_simple import DistributionPackage

ACCEPT: Final = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
_HEAD = re.compile(rb"<(?:base|meta)\b[^>]*>", re.IGNORECASE)
_LINK = re.compile(rb"""<a\s(?:[^>"']|"[^"]*"|'[^']*')*>.*?</a\s*>""", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class IndexedFile:
    """A wheel or sdist in an index; `size` is in bytes, or None if the index does not give it."""

    filename: str
    url: str
    index: str
    size: int | None
    hashes: Mapping[str, str]
    is_wheel: bool
    is_yanked: bool = False

    @property
    def version(self) -> Version | None:
        """The version in its name; None if that is no name that the standards know."""
        return _version_in(self.filename)


@lru_cache(maxsize=1 << 14)
def _version_in(filename: str) -> Version | None:
    if filename.endswith(".whl"):
        return _version(filename.split("-")[1] if "-" in filename else "")
    try:
        return parse_sdist_filename(filename)[1]
    except InvalidSdistFilename:
        return None


@lru_cache(maxsize=1 << 12)  # a project has many wheels of one version
def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def parse_page(response: requests.Response, name: str, index: str, hexes: frozenset[str]) -> tuple[IndexedFile, ...]:
    """The files of a project with one of the hashes (in hexadecimal); raise ValueError if the answer is no page."""
    from pypi_simple import ProjectPage  # noqa: PLC0415 -- a quarter of the start of any command

    if "json" in response.headers.get("content-type", ""):
        table = _wanted_files(from_json(response.content, cache_strings="keys"), hexes)
        page = ProjectPage.from_json_data(table, response.url)
    else:
        page = ProjectPage.from_html(name, _wanted_links(response.content, hexes), response.url, response.encoding)
    return tuple(_indexed(package, index) for package in page.packages if package.package_type in {"wheel", "sdist"})


def _wanted_files(table: Any, hexes: frozenset[str]) -> Any:
    """The JSON document with only those files; as it is, if it is none."""
    files = table.get("files") if isinstance(table, dict) else None
    if not isinstance(files, list):
        return table
    return {**table, "files": [file for file in files if not isinstance(file, dict) or _has_one(file, hexes)]}


def _has_one(file: Mapping[str, Any], hexes: frozenset[str]) -> bool:
    hashes = file.get("hashes")
    return not isinstance(hashes, dict) or not hexes.isdisjoint(hashes.values())


def _wanted_links(html: bytes, hexes: Collection[str]) -> bytes:
    """The HTML document with only the links that contain a hash."""
    wanted = [value.encode() for value in hexes]
    links = [link for link in _LINK.findall(html) if any(value in link for value in wanted)]
    return b"<html><head>" + b"".join(_HEAD.findall(html)) + b"</head><body>" + b"".join(links) + b"</body></html>"


def _indexed(package: DistributionPackage, index: str) -> IndexedFile:
    return IndexedFile(
        filename=package.filename,
        url=without_credentials(package.url),
        index=index,
        size=package.size,
        hashes=dict(package.digests),
        is_wheel=package.package_type == "wheel",
        is_yanked=package.is_yanked,
    )
