"""The uv settings with which an image is made: those of the project, and answers of its indexes that last.

In a job, uv builds the project with the index's answers in the image's cache. For most indexes they are fresh for ten
minutes or not at all; after that, uv would ask again before it builds, and fail where no index answers, although all
that the build needs is in the cache. So they are stored as fresh for years (uv's `cache-control` of an index).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from builder.lock.model import Selection

_YEARS: Final = {"api": "max-age=365000000", "files": "max-age=365000000, immutable"}
_OLD_NAMES: Final = ("index-url", "extra-index-url")  # which have no place for `cache-control`


def settings_of(selection: Selection) -> Mapping[str, Any]:
    """The content of the `uv.toml` with which a whole image is made; empty if uv needs none."""
    if not selection.build_systems and all(package.is_wheel for package in selection.packages):
        return selection.uv_settings  # uv asks no index
    return lasting(selection.uv_settings)


def lasting(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings, with indexes whose answers last."""
    others = {name: value for name, value in settings.items() if name not in _OLD_NAMES}
    return {**others, "index": [{**index, "cache-control": _YEARS} for index in _indexes(settings)]}


def _indexes(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The indexes in uv's order, the default one at the end, unless `index` names it."""
    from pypi_simple import PYPI_SIMPLE_ENDPOINT  # noqa: PLC0415 -- a quarter of the start of any command

    found = [*settings.get("index", ()), *({"url": url} for url in settings.get("extra-index-url", ()))]
    if not any(index.get("default") for index in found):
        # Without the slash, as uv writes it: the address decides where in the cache answers are.
        found.append({"url": settings.get("index-url", PYPI_SIMPLE_ENDPOINT.rstrip("/")), "default": True})
    return found
