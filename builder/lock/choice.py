"""Chooses the file of each package that a cell installs, and says why it cannot install the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

from packaging.pylock import Package, PackageArchive, PackageDirectory, PackageSdist, PackageVcs, PackageWheel
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag, create_compatible_tags_selector

from builder.lock.build_policy import BuildPolicy
from builder.lock.environment import marker_environment, wheel_tags
from builder.lock.model import Lock
from builder.lock.project import uv_settings
from builder.lock.wheel import archive_name, tags_of, wheels_that_exist
from builder.matrix.model import Cell

RemoteSource = PackageWheel | PackageSdist | PackageArchive | PackageVcs
Source = RemoteSource | PackageDirectory


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Why a cell cannot install a package, or, without a package, why it cannot install from the lock at all.

    `is_by_setting` says that a setting of the project forbids it.
    """

    package: Package | None
    reason: str
    hint: str
    is_by_setting: bool = False


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The source of each package that a cell installs, and all faults; with a fault, the cell cannot be built.

    `cached` are the sources that each job installs that a group of `cache-groups` is for.
    """

    sources: tuple[tuple[Package, Source], ...]
    faults: tuple[Fault, ...]
    cached: tuple[tuple[tuple[Package, Source], ...], ...] = ()


def choose(lock: Lock, cell: Cell) -> Choice:
    """Choose from the lock as PEP 751 says ("Installation"), but report every fault, not only the first."""
    own, others = _choose(lock, cell), [_choose(each, cell) for each in lock.cached]
    faults = {
        (str(fault.package.name) if fault.package else "", fault.reason): fault
        for choice in (own, *others) for fault in choice.faults
    }  # fmt: skip
    return replace(own, faults=tuple(faults.values()), cached=tuple(choice.sources for choice in others))


def _choose(lock: Lock, cell: Cell) -> Choice:
    fault = _lock_fault(lock, cell)
    if fault:
        return Choice(sources=(), faults=(fault,))
    policy = policy_of(lock)
    sources: list[tuple[Package, Source]] = []
    faults = []
    for packages in _by_name(lock, cell):
        chosen = _source_of_one(packages, cell, policy)
        if isinstance(chosen, Fault):
            faults.append(chosen)
        else:
            sources.append((packages[0], chosen))
    return Choice(sources=tuple(sources), faults=tuple(faults))


def policy_of(lock: Lock) -> BuildPolicy:
    """What the matrix and the project's settings allow to be built, and to be installed from wheels."""
    by_pip = lock.kind in {"pylock.toml", "requirements.txt"}  # `uv pip sync` installs them
    read = BuildPolicy.from_pip_settings if by_pip else BuildPolicy.from_settings
    policy = replace(read(*uv_settings(lock)), allows_source=lock.allows_source)
    if lock.kind == "requirements.txt":
        policy = policy.with_options(lock.path, (lock.pylock.tool or {}).get("builder", {}))
    return policy


def installs(lock: Lock, package: Package, cell: Cell, policy: BuildPolicy) -> bool:
    """Whether the cell could install this package of the lock, whatever else is in it."""
    return _lock_fault(lock, cell) is None and not isinstance(_source_of_one([package], cell, policy), Fault)


def _lock_fault(lock: Lock, cell: Cell) -> Fault | None:
    environment = _values(cell)
    requires = lock.pylock.requires_python
    if requires and not _admits(requires, environment):
        hint = "remove that Python from the matrix, or widen requires-python and lock again"
        return Fault(package=None, reason=_outside(requires, environment), hint=hint)
    environments = lock.pylock.environments
    if environments and not any(each.evaluate(environment, context="requirement") for each in environments):
        return Fault(
            package=None,
            reason="it is none of the environments that the lock is for",
            hint="exclude the cell, or lock again for this environment",
        )
    return None


def _by_name(lock: Lock, cell: Cell) -> Iterator[list[Package]]:
    """The packages whose markers hold for the cell, those with the same name together."""
    values = _values(cell) | {"extras": frozenset(lock.extras), "dependency_groups": frozenset(lock.groups)}
    named: dict[str, list[Package]] = {}
    for package in lock.pylock.packages:
        if package.marker is None or package.marker.evaluate(values, context="lock_file"):
            named.setdefault(package.name, []).append(package)
    yield from named.values()


def _source_of_one(packages: Sequence[Package], cell: Cell, policy: BuildPolicy) -> Source | Fault:
    first = packages[0]
    if len(packages) > 1:
        entries = " and ".join(map(_described, packages))
        return Fault(
            package=first,
            reason=f"{entries} are both selected for package {first.name!r}",
            hint="exclude the cell, or lock again so that their markers exclude each other",
        )
    environment = _values(cell)
    if first.requires_python and not _admits(first.requires_python, environment):
        reason = f"{_outside(first.requires_python, environment)} for package {first.name!r}"
        hint = "remove that Python from the matrix, or lock a version of the package that admits it"
        return Fault(package=first, reason=reason, hint=hint)
    if first.vcs and first.vcs.type != "git":
        reason = f"package {_quoted(first)} is in a repository of type {first.vcs.type!r}; uv installs from git only"
        return Fault(package=first, reason=reason, hint="lock it from git, from an index or from a URL")
    source = _source(first, cell, must_build=policy.forbids_wheel(first.name))
    return _no_file(first, cell) if source is None else _forbidden(first, source, policy) or source


def _is_wheel(source: Source) -> bool:
    if isinstance(source, PackageArchive):
        return archive_name(source).endswith(".whl")
    return isinstance(source, PackageWheel)


def _forbidden(package: Package, source: Source, policy: BuildPolicy) -> Fault | None:
    """The fault of a package whose only source the project's settings forbid; local packages are built by jobs."""
    if isinstance(source, PackageDirectory):
        return None
    if policy.forbids_wheel(package.name) and policy.forbids_build(package.name) and policy.allows_source:
        return Fault(
            package=package,
            reason=f"package {_quoted(package)} is marked as both no-build and no-binary",
            hint="change one of the two settings in [tool.uv]",
            is_by_setting=True,
        )
    if _is_wheel(source) and policy.forbids_wheel(package.name):
        setting, missing = "no-binary", "sdist"
    elif not _is_wheel(source) and policy.forbids_build(package.name):
        setting, missing = "no-build", "wheel for this cell"
    else:
        return None
    if setting == "no-build" and not policy.allows_source:
        return Fault(
            package=package,
            reason=f"package {_quoted(package)} has no {missing}, and the matrix says allow-source = false",
            hint="lock a version that has one, exclude the cell, or remove install.allow-source from the matrix",
        )
    return Fault(
        package=package,
        reason=f"package {_quoted(package)} is marked as {setting} but has no {missing}",
        hint=f"change {setting} or {setting}-package in [tool.uv], or the option in the requirements file; "
        "or exclude the cell, or lock another version",
        is_by_setting=True,
    )


def _described(package: Package) -> str:
    """Name and version of a package and, in a lock made from several files, its place."""
    place = _place(package)
    return f"{package.name} {package.version or ''}".rstrip() + (f" ({place})" if place else "")


def _place(package: Package) -> str:
    """Where a requirements file pins the package: `requirements.txt:3`; empty for other locks."""
    return str((package.tool or {}).get("builder", {}).get("place") or "")


def _source(package: Package, cell: Cell, *, must_build: bool) -> Source | None:
    if package.archive is not None:
        name = archive_name(package.archive)
        fits = not name.endswith(".whl") or not tags_of(name).isdisjoint(wheel_tags(cell))
        return package.archive if fits else None
    if direct := package.vcs or package.directory:
        return direct
    if must_build and package.sdist:
        return package.sdist
    return wheel_for(package, cell) or package.sdist


def wheel_for(package: Package, cell: Cell) -> PackageWheel | None:
    """The wheel of a package that fits a cell best; None if none does."""
    fitting = _best_first(cell)((wheel, tags_of(wheel.filename)) for wheel in package.wheels or ())
    return next(iter(fitting), None)


@lru_cache(maxsize=64)
def _best_first(cell: Cell) -> Callable[[Iterable[tuple[PackageWheel, frozenset[Tag]]]], Iterator[PackageWheel]]:
    return create_compatible_tags_selector(wheel_tags(cell))


def _no_file(package: Package, cell: Cell) -> Fault:
    names = [wheel.filename for wheel in package.wheels or ()]
    if package.archive is not None:
        names.append(archive_name(package.archive))
    if not names:
        place = _place(package)
        return Fault(
            package=package,
            reason=f"the index has no file of package {_quoted(package)} with a pinned hash ({place})"
            if place
            else f"the lock has no file of package {_quoted(package)}",
            hint="exclude the cell, or lock again for this environment",
        )
    return Fault(
        package=package,
        reason=f"no wheel found for package {_quoted(package)}, and no sdist available: "
        f"{wheels_that_exist(names, cell)}",
        hint="exclude the cell, give its base another libc, or lock a version that has a wheel or sdist for it",
    )


def _quoted(package: Package) -> str:
    return f"{package.name!r} {package.version}" if package.version else repr(package.name)


def _values(cell: Cell) -> dict[str, str | AbstractSet[str]]:
    return cast("dict[str, str | AbstractSet[str]]", marker_environment(cell))


def _admits(requires: SpecifierSet, environment: Mapping[str, Any]) -> bool:
    return requires.contains(environment["python_full_version"])


def _outside(requires: SpecifierSet, environment: Mapping[str, Any]) -> str:
    return f"Python {environment['python_version']} is outside requires-python {str(requires)!r}"
