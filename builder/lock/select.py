"""Select the exact artifacts that one cell installs, by environment marker and wheel tag."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from packaging.pylock import Package, PackageArchive, PackageDirectory, PackageSdist, PackageVcs, PackageWheel

from builder.errors import LockError
from builder.lock.build_system import build_settings, build_systems, index_settings
from builder.lock.choice import Choice, Fault, RemoteSource, Source, choose
from builder.lock.model import Artifact, Lock, SelectedPackage, Selection
from builder.lock.url import public_url
from builder.lock.wheel import archive_name
from builder.matrix.model import Cell


def select(lock: Lock, cell: Cell) -> Selection:
    """Select what the cell installs; raise LockError, with every fault, if the lock does not cover the cell."""
    return select_all({cell: lock})[0]


def select_all(locks: Mapping[Cell, Lock]) -> list[Selection]:
    """Select what each cell installs; raise LockError, with the faults of all cells, if a lock lacks something."""
    choices = {cell: choose(lock, cell) for cell, lock in locks.items()}
    faults = {cell: choice.faults for cell, choice in choices.items() if choice.faults}
    if faults:
        raise _uncovered(locks, faults)
    return [selection_of(locks[cell], cell, choice) for cell, choice in choices.items()]


def selection_of(lock: Lock, cell: Cell, choice: Choice) -> Selection:
    """The selection of what was chosen for the cell."""
    packages, *cached = _without_repetition([_remote(sources) for sources in (choice.sources, *choice.cached)])
    locals_ = dict.fromkeys(
        f"{source.path}/{source.subdirectory or ''}"
        for _, source in (*choice.sources, *(each for sources in choice.cached for each in sources))
        if isinstance(source, PackageDirectory)
    )
    downloads = [*packages, *(package for group in cached for package in group)]
    return Selection(
        cell=cell,
        lock_kind=lock.kind,
        lock_name=lock.path.name,
        uv_flags=lock.uv_flags,
        lock_folder=lock.folder,
        packages=packages,
        build_systems=build_systems(lock, list(locals_)),
        uv_settings={
            **index_settings(lock, {package.index for package in downloads}),
            **build_settings(lock, downloads),
        },
        cached=tuple(group for group in cached if group),
    )


def _remote(sources: Iterable[tuple[Package, Source]]) -> list[SelectedPackage]:
    """What is not in the checkout, sorted by name."""
    selected = (
        selected_package(package, source)
        for package, source in sources
        if not isinstance(source, PackageDirectory) and source.url  # a source without a URL is a local file
    )
    return sorted(selected, key=lambda package: package.name)


def _without_repetition(groups: Iterable[Sequence[SelectedPackage]]) -> Iterator[tuple[SelectedPackage, ...]]:
    """Yield each group without what an earlier one has."""
    seen: set[tuple[str, str]] = set()
    for group in groups:
        new = {(package.name, str(package.source)): package for package in group}
        yield tuple(package for key, package in new.items() if key not in seen)
        seen |= new.keys()


def _uncovered(locks: Mapping[Cell, Lock], faults: Mapping[Cell, Sequence[Fault]]) -> LockError:
    hint = next(iter(faults.values()))[0].hint
    texts = []
    for cell, of_cell in faults.items():
        reasons = [fault.reason for fault in of_cell]
        shown = f" {reasons[0]}" if len(reasons) == 1 else "\n  ".join(["", *reasons])
        texts.append(f"{locks[cell].path} does not cover the cell {cell.name}:{shown}")
    return LockError("\n".join(texts), hint=hint)


def selected_package(package: Package, source: RemoteSource) -> SelectedPackage:
    """A package with the source that a cell installs it from."""
    table: dict[str, Any] = {"url": public_url(str(source.url), f"package {package.name}")}
    size: int | None = None
    if isinstance(source, PackageVcs):
        table = {"type": source.type, **table, "commit-id": source.commit_id}
        artifact: Artifact = "vcs"
        filename = f"{package.name}@{source.commit_id}"
    else:
        size = source.size
        table |= ({"size": size} if size is not None else {}) | {"hashes": dict(sorted(source.hashes.items()))}
        artifact = _ARTIFACTS[type(source)]
        filename = archive_name(source) if isinstance(source, PackageArchive) else source.filename
        if not isinstance(source, PackageArchive) and not table["url"].endswith(f"/{filename}"):
            table["name"] = filename  # the URL does not contain it
    if isinstance(source, PackageVcs | PackageArchive) and source.subdirectory:
        table["subdirectory"] = source.subdirectory
    return SelectedPackage(
        name=package.name,
        version=str(package.version) if package.version else None,
        artifact=artifact,
        filename=filename,
        size=size,
        index=public_url(package.index, f"the index of {package.name}", is_index=True) if package.index else None,
        source=table,
    )


_ARTIFACTS: Final[Mapping[type, Artifact]] = {
    PackageWheel: "wheel", PackageSdist: "sdist", PackageArchive: "archive",
}  # fmt: skip
