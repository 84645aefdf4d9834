"""Sizes of artifacts that a lock does not give: some indexes do not tell them, and then uv cannot write them down.

They decide only which packages share a layer, and in which order the layers are. So they are asked for once, and an
index that does not answer is no error.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping
from typing import Final

import requests

from builder import http
from builder.layer.store import LayerStore
from builder.lock.model import SelectedPackage

_SECONDS: Final = 20.0  # for an answer, redirects included


def fetch_sizes(packages: Iterable[SelectedPackage], store: LayerStore, stopped: threading.Event) -> dict[str, int]:
    """Return the sizes of artifacts in bytes, by package: from the lock, from an earlier run, or from the server.

    A package is missing if its size cannot be told.
    """
    packages = list(packages)
    sizes = {package.name: size for package in packages if (size := package.size or store.size_of(_hash(package)))}
    unknown = [package for package in packages if package.name not in sizes and _url(package)]
    if not unknown:
        return sizes
    session = http.open_session(retries=0, stopped=stopped)

    def fetch(package: SelectedPackage) -> int:
        try:
            answer = session.request("HEAD", _url(package), limit=0, seconds=_SECONDS)
        except requests.RequestException:
            return 0
        length = answer.headers.get("Content-Length", "")
        return int(length) if answer.ok and re.fullmatch("[0-9]{1,15}", length) else 0

    for package, size in zip(unknown, http.map_concurrently(fetch, unknown, stopped), strict=True):
        if size:
            sizes[package.name] = size
            store.add_size(_hash(package), size)
    return sizes


def _url(package: SelectedPackage) -> str:
    url = str(package.source.get("url", ""))
    return url if url.startswith(("https://", "http://")) else ""


def _hash(package: SelectedPackage) -> str:
    hashes = package.source.get("hashes")
    return str(hashes.get("sha256", "")) if isinstance(hashes, Mapping) else ""
