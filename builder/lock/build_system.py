"""Build requirements of local packages, and uv's settings for builds.

Jobs install local packages (the project, workspace members, path dependencies), because they have the sources. Images
contain only the build systems.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from builder.errors import LockError
from builder.lock.model import BuildSystem, Lock, SelectedPackage
from builder.lock.project import uv_settings
from builder.lock.text import entries, entry, table_of
from builder.lock.url import public_url
from builder.redaction import is_secret_name

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
_UNISOLATED: Final = "no-build-isolation-package"
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^\s;]+", re.IGNORECASE)
_LINE_BREAK: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_BACKEND: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(:[^\W\d]\w*(\.[^\W\d]\w*)*)?")


def build_systems(lock: Lock, local_paths: Sequence[str]) -> tuple[BuildSystem, ...]:
    """The distinct build systems of the local packages, in a stable order."""
    source, settings = uv_settings(lock)
    systems: dict[tuple[tuple[str, ...], str], BuildSystem] = {}
    for path in local_paths:
        pyproject = lock.project / path / "pyproject.toml"
        declared = entry(pyproject, table_of(pyproject), "build-system", dict, _DEFAULT_BUILD_SYSTEM)
        backend = entry(pyproject, declared, "build-backend", str, "setuptools.build_meta:__legacy__")
        system = BuildSystem(
            requires=_requirements(pyproject, declared, "requires"),
            backend="" if "backend-path" in declared else _backend(pyproject, backend),
            constraints=_requirements(source, settings, "build-constraint-dependencies"),
        )
        if system.requires:
            systems[system.requires, system.backend] = system
    return tuple(systems[key] for key in sorted(systems))


def _requirements(path: Path, table: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """The requirements in an array, without credentials; raise LockError if one is not what PEP 508 defines."""
    return tuple(_requirement(path, key, text) for text in entries(path, table, key, str))


def _requirement(path: Path, key: str, text: str) -> str:
    try:
        if _LINE_BREAK.search(text):  # which the grammar has in URLs and in strings
            raise InvalidRequirement("it has a line break or a control character")  # noqa: TRY301
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise LockError(
            f"{path}: {key}: {text!r} is not a requirement: {str(error).splitlines()[0]}",
            hint='write it as PEP 508 says, such as "hatchling>=1.27"',
        ) from error
    if requirement.url:
        requirement.url = public_url(requirement.url, f"{path}: {key}: {requirement.name}")
        return str(requirement)
    return text


def _backend(path: Path, text: str) -> str:
    """The name of a build backend; raise LockError if it is not `module:object` (PEP 517)."""
    if not _BACKEND.fullmatch(text):
        raise LockError(
            f"{path}: build-backend {text!r} is not the name of a module or of an object in one",
            hint='write it as PEP 517 says, such as "hatchling.build"',
        )
    return text


def index_settings(lock: Lock, indexes: AbstractSet[str | None]) -> Mapping[str, Any]:
    """The uv settings for what the lock does not have: those of the project, else the only index in it."""
    source, settings = uv_settings(lock)
    selected = {name: settings[name] for name in _INDEX_SETTINGS if name in settings}
    if "index" in selected:
        selected["index"] = [
            # Builds do not need publish-url, and it may contain a password.
            {name: value for name, value in index.items() if name != "publish-url"}
            | {"url": public_url(entry(source, index, "url", str, ""), f"{source}: index", is_index=True)}
            for index in entries(source, settings, "index", dict)
        ]
    if "index-url" in selected:
        selected["index-url"] = public_url(
            entry(source, settings, "index-url", str, ""), f"{source}: index-url", is_index=True
        )
    if "extra-index-url" in selected:
        selected["extra-index-url"] = [
            public_url(url, f"{source}: extra-index-url", is_index=True)
            for url in entries(source, settings, "extra-index-url", str)
        ]
    locked = {index for index in indexes if index}
    if not selected.keys() & {"index", "index-url"} and len(locked) == 1:
        selected["index"] = [{"url": locked.pop(), "default": True}]
    return selected


def build_settings(lock: Lock, packages: Sequence[SelectedPackage]) -> Mapping[str, Any]:
    """The uv settings for those of the packages that are built from source; empty if none is."""
    source, settings = uv_settings(lock)
    built = {package.name for package in packages if not package.is_wheel}
    selected = {name: settings[name] for name in _BUILD_SETTINGS if built and name in settings}
    selected |= {key: entry(source, settings, key, dict, {}) for key in _PACKAGE_SETTINGS}
    selected[_UNISOLATED] = entries(source, settings, _UNISOLATED, str)
    return {name: _public(value, f"{source}: {name}") for name, value in narrowed(selected, built).items() if value}


def narrowed(settings: Mapping[str, Any], names: Collection[str]) -> Mapping[str, Any]:
    """Those of the uv settings for builds that matter to packages of these names."""
    kept = dict(settings)
    for key in _PACKAGE_SETTINGS:
        tables = settings.get(key, {})
        kept[key] = {name: table for name, table in tables.items() if canonicalize_name(name) in names}
    unisolated = settings.get(_UNISOLATED, [])
    kept[_UNISOLATED] = [name for name in unisolated if canonicalize_name(name) in names]
    return {key: value for key, value in kept.items() if value or key not in {*_PACKAGE_SETTINGS, _UNISOLATED}}


def _public(value: Any, place: str) -> Any:
    """A setting without the credentials in its URLs; raise LockError if it has other secrets, as far as names tell."""
    if isinstance(value, Mapping):
        for name in value:
            if is_secret_name(name):
                raise LockError(
                    f"{place}.{name} looks like a secret, and would be in the image",
                    hint="builds have no secrets but those of NETRC and SSL_CERT_FILE",
                )
        return {name: _public(item, f"{place}.{name}") for name, item in value.items()}
    if isinstance(value, list):
        return [_public(item, place) for item in value]
    return _URL.sub(lambda match: public_url(match[0], place), value) if isinstance(value, str) else value
