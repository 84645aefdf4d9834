"""Packages of a lock that images do not get, because their files are in the checkout."""

from __future__ import annotations

from collections.abc import Iterator

from packaging.pylock import Package

from builder.lock.model import Lock


def left_to_jobs(lock: Lock) -> tuple[str, ...]:
    """The files and folders that jobs install themselves, besides the project and the members of its workspace."""
    listed = (lock.pylock.tool or {}).get("builder", {}).get("local", ())
    found = {path for package in lock.pylock.packages for path in _paths(package) if package.name not in lock.members}
    return (*sorted(found), *listed)


def _paths(package: Package) -> Iterator[str]:
    if package.directory and package.directory.path != ".":
        yield package.directory.path
    files = (package.archive, package.sdist, *(package.wheels or ()))
    yield from (str(file.path) for file in files if file and not file.url)
