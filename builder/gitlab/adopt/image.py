"""Python images in `image:`: which Python, distribution and registry the name of one says.

Known images are the official ones (`python:3.12-slim-bookworm`) and uv's (`ghcr.io/astral-sh/uv:python3.12-alpine`),
also through GitLab's dependency proxy or a mirror.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from builder.gitlab.adopt.job import variables_in
from builder.matrix.model import Matrix

# A registry with nothing else in its name than what mirrors add: its host, and a path that says that it is a mirror.
_HOST: Final = r"(?:[\w-]+(?:\.[\w-]+)+(?::\d+)?|[\w-]+:\d+|localhost)"
_MIRRORING: Final = r"(?i:\S*(?:proxy|proxies|mirror|cache|hub|docker[.-]io|dockerio|upstream|remote)[^/\s]*)"
_PREFIX: Final = (
    r"(?P<prefix>(?:\$\{?CI_DEPENDENCY_PROXY(?:_DIRECT)?_GROUP_IMAGE_PREFIX\}?|\S+/dependency_proxy/containers"
    rf"|{_HOST}(?:/\S+(?=/(?:library|ghcr\.io|docker\.io|astral-sh)/))?"
    rf"|(?:{_HOST}|\$\{{?\w+\}}?)/{_MIRRORING}|{_MIRRORING})/)?"
)
_OFFICIAL: Final = rf"{_PREFIX}(?P<path>(?:docker\.io/)?(?:library/)?python)"
_UV: Final = rf"{_PREFIX.replace('<prefix>', '<uv_prefix>')}(?:ghcr\.io/)?(?:astral-sh|astral)/uv"
_NAME: Final = re.compile(rf"(?:(?P<official>{_OFFICIAL})|(?P<uv>{_UV}))(?::(?P<tag>[^@/]*))?(?P<digest>@\S+)?")
_RESEMBLES: Final = re.compile(r"python|\buv\b", re.IGNORECASE)
NO_PYTHON: Final = "does not contain a Python version such as 3.12; set the image of a cell by hand"
VARIABLE: Final = r"\$\{\w+\}|\$\w+"
_VERSION: Final = rf"(?P<python>(?:{VARIABLE}|[0-9.])+)"
OFFICIAL_TAG: Final = re.compile(rf"{_VERSION}(?:-(?P<base>\S+))?")
UV_TAG: Final = re.compile(rf"(?:(?:{VARIABLE}|[0-9.]+)-)?python{_VERSION}(?:-(?P<base>\S+))?")
_UV_ALONE: Final = re.compile(r"(?:[0-9.]+-)?(?P<base>(?:debian|bookworm|trixie|alpine)\S*)")
_PYTHON: Final = re.compile(r"3\.[0-9]+(?:\.[0-9]+)?")
_ALPINE: Final = re.compile(r"alpine[0-9.]*")
_BASE: Final = re.compile(r"(?:slim|bullseye|bookworm|trixie|alpine[0-9.]*)(?:-(?:slim|bullseye|bookworm|trixie))?")


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why an image is left alone, and what to do instead."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class PythonImage:
    """An image with Python: the version, '' if the name leaves it open, and the words after it, such as slim-bookworm.

    `source` is the name without tag of the official image, through the mirror that was used, if there is one.
    """

    python: str
    base: str
    source: str

    @cached_property
    def words(self) -> frozenset[str]:
        """The words of the base."""
        return frozenset(self.base.split("-")) - {"", "debian"}

    @property
    def family(self) -> str:
        """`alpine` or `debian`."""
        return "alpine" if any(_ALPINE.fullmatch(word) for word in self.words) else "debian"

    @property
    def releases(self) -> frozenset[str]:
        """The words that name a distribution release; no Alpine release, because any of them will do."""
        return frozenset(word for word in self.words if word != "slim" and not _ALPINE.fullmatch(word))

    @property
    def is_full(self) -> bool:
        """Whether it has compilers, git and the like, as official images do unless they are slim or Alpine."""
        return self.family == "debian" and "slim" not in self.words


def parse_image(text: str, matrix: Matrix | None) -> PythonImage | Refusal | None:
    """Parse an image name whose variables are expanded; None if it is not a Python image.

    A mirror that the matrix defines stands for the registry that it mirrors.
    """
    text = _without_mirror(text, matrix) if matrix else text
    name = _NAME.fullmatch(text)
    unknown = sorted(variables_in(name["tag"] or "" if name else text))
    if unknown or "$[[" in text:
        reason = f"${unknown[0]} is not set in this file" if unknown else "it contains a component input"
        return Refusal(reason=f"{text}: {reason}") if name or _RESEMBLES.search(text) else None
    if name is None:
        return None
    if name["digest"]:
        return Refusal(reason=f"{text} is pinned by digest; replace it with a pinned baked image by hand")
    tag = name["tag"] or ""
    source = f"{name['prefix'] or ''}{name['path']}" if name["official"] and name["prefix"] else ""
    found = _parse_uv_tag(tag) if name["uv"] else _parse_official_tag(tag)
    if found is None and tag.startswith("2"):
        return Refusal(reason=f"{text} has Python 2, for which there are no baked images")
    if found is None:
        return Refusal(reason=f"{text} {NO_PYTHON}")
    return PythonImage(python=found[0], base=found[1], source="" if "$" in source else source)


def _without_mirror(text: str, matrix: Matrix) -> str:
    """The image name with its original registry, if it uses a mirror that the matrix defines."""
    for registry, mirror in matrix.mirrors.table:
        if text.startswith(f"{mirror}/"):
            return f"{registry}{text.removeprefix(mirror)}"
    return text


def _parse_official_tag(tag: str) -> tuple[str, str] | None:
    """Python and base of a tag of the official images; Python is '' for the newest."""
    match = OFFICIAL_TAG.fullmatch(tag)
    if match and _PYTHON.fullmatch(match["python"]):
        return match["python"], match["base"] or ""
    base = tag.removeprefix("latest").removeprefix("3-") if tag != "3" else ""
    return ("", base) if not base or _BASE.fullmatch(base) else None


def _parse_uv_tag(tag: str) -> tuple[str, str] | None:
    """Python and base of a tag of uv's images; Python is '' where the image has none, and uv would fetch one."""
    match = UV_TAG.fullmatch(tag)
    if match:
        return (match["python"], match["base"] or "slim") if _PYTHON.fullmatch(match["python"]) else None
    alone = _UV_ALONE.fullmatch(tag)
    return ("", alone["base"]) if alone else None
