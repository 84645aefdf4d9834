"""Packages of a lock that images do not get: their files are in the checkout, or nobody chose them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from packaging.pylock import Package

from builder.errors import listed
from builder.lock.model import Lock


def notes_on(locks: Mapping[str, Lock]) -> tuple[str, ...]:
    """What of the locks, by profile, is not in the images, for people."""
    local = list(dict.fromkeys(path for lock in locks.values() for path in left_to_jobs(lock)))
    text = f"left to jobs, which have the files: {listed(local, most=5)}"
    return (*_member_notes(locks), *([text] if local else []))


def left_to_jobs(lock: Lock) -> tuple[str, ...]:
    """The files and folders that jobs install themselves, besides the project and the members of its workspace."""
    named = (lock.pylock.tool or {}).get("builder", {}).get("local", ())
    found = {path for package in lock.pylock.packages for path in _paths(package) if package.name not in lock.members}
    return (*sorted(found), *named)


def _paths(package: Package) -> Iterator[str]:
    if package.directory and package.directory.path != ".":
        yield package.directory.path
    files = (package.archive, package.sdist, *(package.wheels or ()))
    yield from (str(file.path) for file in files if file and not file.url)


def _member_notes(locks: Mapping[str, Lock]) -> tuple[str, ...]:
    """Which members of a workspace are in the images, and which are not."""
    notes = []
    for profile, lock in locks.items():
        chosen = [name for name, is_chosen in lock.members.items() if is_chosen]
        others = [name for name, is_chosen in lock.members.items() if not is_chosen]
        if others:
            images = f"the images of profile {profile}" if profile else "the images"
            text = f"workspace members in {images}: {listed(chosen) or 'none'}; not: {listed(others)}"
            notes.append(f"{text} (install.packages in the matrix, or --package, decides)")
    return tuple(notes)
