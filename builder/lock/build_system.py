"""Build requirements of local packages, and uv's settings for builds.

Jobs install local packages (the project, workspace members, path dependencies), because they have the sources. Images
contain only the build systems.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from packaging.utils import canonicalize_name

from builder.lock.model import BuildSystem, Lock, SelectedPackage
from builder.lock.project import uv_settings
from builder.lock.text import entries, entry, table_of
from builder.lock.url import without_credentials

# A package without [build-system] is built by setuptools (PEP 517, "Source trees").
_DEFAULT_BUILD_SYSTEM: Final[Mapping[str, Any]] = {
    "requires": ["setuptools >= 40.8.0"], "build-backend": "setuptools.build_meta:__legacy__",
}  # fmt: skip

# The [tool.uv] settings that decide which build backends are installed, and from where.
_INDEX_SETTINGS: Final = (
    "index",
    "index-url",
    "extra-index-url",
    "no-index",
    "index-strategy",
    "exclude-newer",
)
# Those that decide how a package is built, for every package or by its name.
_BUILD_SETTINGS: Final = ("config-settings", "no-build-isolation")
_PACKAGE_SETTINGS: Final = ("config-settings-package", "extra-build-dependencies", "extra-build-variables")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s;]+", re.IGNORECASE)


def build_systems(lock: Lock, local_paths: Sequence[str]) -> tuple[BuildSystem, ...]:
    """The distinct build systems of the local packages, in a stable order."""
    source, settings = uv_settings(lock)
    systems: dict[tuple[tuple[str, ...], str], BuildSystem] = {}
    for path in local_paths:
        pyproject = lock.project / path / "pyproject.toml"
        declared = entry(pyproject, table_of(pyproject), "build-system", dict, _DEFAULT_BUILD_SYSTEM)
        backend = entry(pyproject, declared, "build-backend", str, "setuptools.build_meta:__legacy__")
        system = BuildSystem(
            requires=tuple(map(_without_url_credentials, entries(pyproject, declared, "requires", str))),
            backend="" if "backend-path" in declared else backend,
            constraints=tuple(
                map(_without_url_credentials, entries(source, settings, "build-constraint-dependencies", str))
            ),
        )
        if system.requires:
            systems[system.requires, system.backend] = system
    return tuple(systems[key] for key in sorted(systems))


def _without_url_credentials(requirement: str) -> str:
    """The requirement without the credentials in its URL, if it has any."""
    return _URL.sub(lambda match: without_credentials(match[0]), requirement)


def index_settings(lock: Lock, packages: Sequence[SelectedPackage]) -> Mapping[str, Any]:
    """The uv settings for build requirements: those of the project, else the only index in the lock."""
    source, settings = uv_settings(lock)
    selected = {name: settings[name] for name in _INDEX_SETTINGS if name in settings}
    if "index" in selected:
        selected["index"] = [
            # Builds do not need publish-url, and it may contain a password.
            {name: value for name, value in index.items() if name != "publish-url"}
            | {"url": without_credentials(entry(source, index, "url", str, ""))}
            for index in entries(source, settings, "index", dict)
        ]
    if "index-url" in selected:
        selected["index-url"] = without_credentials(entry(source, settings, "index-url", str, ""))
    if "extra-index-url" in selected:
        selected["extra-index-url"] = [
            without_credentials(url) for url in entries(source, settings, "extra-index-url", str)
        ]
    locked = {package.index for package in packages if package.index}
    if not selected.keys() & {"index", "index-url"} and len(locked) == 1:
        selected["index"] = [{"url": locked.pop(), "default": True}]
    return selected


def build_settings(lock: Lock, packages: Sequence[SelectedPackage]) -> Mapping[str, Any]:
    """The uv settings for those of the packages that are built from source; empty if none is."""
    source, settings = uv_settings(lock)
    built = {package.name for package in packages if not package.is_wheel}
    selected = {name: settings[name] for name in _BUILD_SETTINGS if built and name in settings}
    for key in _PACKAGE_SETTINGS:
        tables = entry(source, settings, key, dict, {})
        selected[key] = {name: table for name, table in tables.items() if canonicalize_name(name) in built}
    unisolated = entries(source, settings, "no-build-isolation-package", str)
    selected["no-build-isolation-package"] = [name for name in unisolated if canonicalize_name(name) in built]
    return {name: value for name, value in selected.items() if value}
