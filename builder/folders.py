"""The folders that builder keeps between runs. Deleting one costs only time."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where builder keeps what later runs can use; deleting it costs only time."""
    if os.environ.get("BUILDER_CACHE_DIR"):
        return Path(os.environ["BUILDER_CACHE_DIR"])
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "builder"


def layer_folder() -> Path:
    """Where layers are kept between runs."""
    return cache_folder() / "layers"


def root_folder() -> Path:
    """Where images are unpacked without an engine."""
    return cache_folder() / "roots"


def sdist_folder() -> Path:
    """Where it is noted what sdists are made of."""
    return cache_folder() / "sdists"


def record_folder() -> Path:
    """Where it is noted which images were verified."""
    return cache_folder() / "verified"


def pace_file() -> Path:
    """Where it is noted how long cells took."""
    return cache_folder() / "pace.json"


def default_log_folder() -> Path:
    """Where build logs are kept unless --log-dir says otherwise."""
    return cache_folder() / "logs"
