"""The digest of a wheel's files, by which its copies in a layer, in an image and in the wheel itself are compared.

This module is part of the script that runs in images: it needs nothing but Python 3.8 or later.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping


def wheel_id(name: str) -> str:
    """Return name and version in one spelling, of a wheel's file name or its `.dist-info` folder: `six-1.17.0`."""
    stem = re.sub(r"\.dist-info$", "", name)
    package, _, rest = stem.partition("-")
    return re.sub(r"[-_.]+", "-", package).lower() + "-" + rest.split("-")[0].lower()


def tree_digest(hashes: Mapping[str, str]) -> str:
    """Return one SHA-256 digest for files, given as paths, relative to their top, and hexadecimal SHA-256 hashes."""
    lines = sorted(f"{path}\0{hash_}\n".encode("utf-8", "surrogateescape") for path, hash_ in hashes.items())
    return "sha256:" + hashlib.sha256(b"".join(lines)).hexdigest()
