"""Select the exact artifacts that one cell installs, by environment marker and wheel tag."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from packaging.pylock import (
    Package,
    PackageArchive,
    PackageDirectory,
    PackageSdist,
    PackageVcs,
    PackageWheel,
    PylockSelectError,
)

from builder.errors import LockError
from builder.lock.build_system import build_systems, index_settings
from builder.lock.environment import marker_environment, wheel_tags
from builder.lock.index import without_credentials
from builder.lock.model import Artifact, Lock, SelectedPackage, Selection
from builder.matrix.model import Cell

_RemoteSource = PackageWheel | PackageSdist | PackageArchive | PackageVcs
_Source = _RemoteSource | PackageDirectory


def select(lock: Lock, cell: Cell) -> Selection:
    """Select what the cell installs; raise LockError if the lock does not cover the cell."""
    try:
        chosen = list(
            lock.pylock.select(
                environment=marker_environment(cell),
                tags=wheel_tags(cell),
                extras=lock.extras,
                dependency_groups=lock.groups,
            )
        )
    except PylockSelectError as error:
        raise LockError(
            f"{lock.path} does not cover the cell {cell.name}: {_reason(error)}", hint=_select_hint(error)
        ) from error
    packages = sorted(
        (
            _selected(package, source)
            for package, source in chosen
            if not isinstance(source, PackageDirectory) and source.url  # a source without a URL is a local file
        ),
        key=lambda package: package.name,
    )
    locals_ = [
        f"{source.path}/{source.subdirectory or ''}" for _, source in chosen if isinstance(source, PackageDirectory)
    ]
    return Selection(
        cell=cell,
        lock_kind=lock.kind,
        lock_name=lock.path.name,
        uv_flags=lock.uv_flags,
        packages=tuple(packages),
        build_systems=build_systems(lock, locals_),
        uv_settings=index_settings(lock, packages),
    )


def _reason(error: PylockSelectError) -> str:
    text = re.sub(r" at packages\[\d+\]", "", str(error))
    match = re.search(
        r"'(?P<python>3\.\d+)\.\d+' .*requirement '(?P<requirement>[^']*)'(?P<package> for package '[^']*')?",
        text,
    )
    if match:
        return f"Python {match['python']} is outside requires-python {match['requirement']!r}{match['package'] or ''}"
    return text[0].lower() + text[1:]


def _select_hint(error: PylockSelectError) -> str:
    text = str(error)
    if "No wheel found" in text:
        return "exclude the cell, give its base another libc, or lock a version that has a wheel or sdist for it"
    if "Python version" in text:
        return "remove that Python from the matrix, or widen requires-python and lock again"
    return "exclude the cell, or lock again for this environment"


def _selected(package: Package, source: _RemoteSource) -> SelectedPackage:
    table: dict[str, Any] = {"url": without_credentials(str(source.url))}
    size: int | None = None
    if isinstance(source, PackageVcs):
        table = {"type": source.type, **table, "commit-id": source.commit_id}
        artifact: Artifact = "vcs"
        filename = f"{package.name}@{source.commit_id}"
    else:
        size = source.size
        table |= ({"size": size} if size is not None else {}) | {"hashes": dict(sorted(source.hashes.items()))}
        artifact = _ARTIFACTS[type(source)]
        filename = table["url"].rsplit("/", 1)[-1] if isinstance(source, PackageArchive) else source.filename
        if not table["url"].endswith(f"/{filename}"):
            table["name"] = filename  # the URL does not contain it
    if isinstance(source, PackageVcs | PackageArchive) and source.subdirectory:
        table["subdirectory"] = source.subdirectory
    return SelectedPackage(
        name=package.name,
        version=str(package.version) if package.version else None,
        artifact=artifact,
        filename=filename,
        size=size,
        index=without_credentials(package.index) if package.index else None,
        source=table,
    )


_ARTIFACTS: Final[Mapping[type, Artifact]] = {
    PackageWheel: "wheel", PackageSdist: "sdist", PackageArchive: "archive",
}  # fmt: skip
