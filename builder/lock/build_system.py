"""What local packages need in order to be built, and from which index.

Local packages (the project, workspace members, path dependencies) are left to the job, which has their sources; only
their build systems go into an image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from builder.lock.index import without_credentials
from builder.lock.model import BuildSystem, Lock, SelectedPackage
from builder.lock.project import entries, entry, table_of, uv_settings

# A package without [build-system] is built by setuptools (PEP 517, "Source trees").
_DEFAULT_BUILD_SYSTEM: Final[Mapping[str, Any]] = {
    "requires": ["setuptools >= 40.8.0"], "build-backend": "setuptools.build_meta:__legacy__",
}  # fmt: skip

# What of [tool.uv] decides where a build backend comes from and which version of it.
_INDEX_SETTINGS: Final = (
    "index",
    "index-url",
    "extra-index-url",
    "no-index",
    "index-strategy",
    "exclude-newer",
)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s;]+", re.IGNORECASE)


def build_systems(lock: Lock, local_paths: Sequence[str]) -> tuple[BuildSystem, ...]:
    """The distinct build systems of the local packages, in a stable order."""
    source, settings = uv_settings(lock)
    found: dict[tuple[tuple[str, ...], str], BuildSystem] = {}
    for path in local_paths:
        pyproject = lock.project / path / "pyproject.toml"
        declared = entry(pyproject, table_of(pyproject), "build-system", dict, _DEFAULT_BUILD_SYSTEM)
        backend = entry(pyproject, declared, "build-backend", str, "setuptools.build_meta:__legacy__")
        system = BuildSystem(
            requires=tuple(map(_public, entries(pyproject, declared, "requires", str))),
            backend="" if "backend-path" in declared else backend,
            constraints=tuple(map(_public, entries(source, settings, "build-constraint-dependencies", str))),
        )
        if system.requires:
            found[system.requires, system.backend] = system
    return tuple(found[key] for key in sorted(found))


def _public(requirement: str) -> str:
    """The requirement, without the credentials that its URL may have."""
    return _URL.sub(lambda match: without_credentials(match[0]), requirement)


def index_settings(lock: Lock, packages: Sequence[SelectedPackage]) -> Mapping[str, Any]:
    """Where builds get their requirements: as the project says, or else from the one index that the lock names."""
    source, settings = uv_settings(lock)
    chosen = {name: settings[name] for name in _INDEX_SETTINGS if name in settings}
    if "index" in chosen:
        chosen["index"] = [
            # Where to publish is nothing to a build, and that address may have a password too.
            {name: value for name, value in index.items() if name != "publish-url"}
            | {"url": without_credentials(entry(source, index, "url", str, ""))}
            for index in entries(source, settings, "index", dict)
        ]
    if "index-url" in chosen:
        chosen["index-url"] = without_credentials(entry(source, settings, "index-url", str, ""))
    if "extra-index-url" in chosen:
        chosen["extra-index-url"] = [
            without_credentials(url) for url in entries(source, settings, "extra-index-url", str)
        ]
    named = {package.index for package in packages if package.index}
    if not chosen.keys() & {"index", "index-url"} and len(named) == 1:
        chosen["index"] = [{"url": named.pop(), "default": True}]
    return chosen
