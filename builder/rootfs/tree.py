"""A folder that is a root file system: paths in it are resolved here, not by the kernel, so that no link leads out.

Like an engine, it follows links in the folders of a path as a process would that has the folder as its /. The last part
of a path is never followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS: Final = 40  # in one path, as in Linux
_MOST_OPEN: Final = 64
_DEEPEST: Final = 200  # folders in each other
_NEW_FOLDER: Final = 0o755

Parts = tuple[str, ...]


class WrongPathError(Exception):
    """A path that cannot be in a root file system; `str()` says why."""


def path_parts(name: str) -> Parts:
    """Split a path into its parts; an absolute one is one of the folder. Raises WrongPathError for `..` and NUL."""
    parts = tuple(part for part in name.split("/") if part not in {"", "."})
    if ".." in parts or "\0" in name:
        raise WrongPathError(f"{name!r} leads out of the image")
    return parts


class RootTree:
    """An open root file system."""

    def __init__(self, path: Path) -> None:
        self._top = os.open(path, _FOLDER)
        self._opened: dict[Parts, int] = {}  # the last ones: entries of a tar mostly are in the folder of one before

    def __enter__(self) -> RootTree:
        return self

    def __exit__(self, *_: object) -> None:
        self.forget()
        os.close(self._top)

    def forget(self) -> None:
        """Open folders anew from now on: something was mounted, or removed by others."""
        _close(self._opened.values())
        self._opened.clear()

    def folder(self, parts: Parts, *, create: bool) -> int | None:
        """A descriptor of a folder, valid until the next call but one; None if it is missing and not created.

        Raises WrongPathError if a part of the path is a file, or its links go in circles.
        """
        found = self._opened.pop(parts, None)
        if found is None:
            found = self._walk(parts, create=create)
        if found is None:
            return None
        if len(self._opened) >= _MOST_OPEN:
            os.close(self._opened.pop(next(iter(self._opened))))
        self._opened[parts] = found  # the last
        return found

    def _walk(self, parts: Parts, *, create: bool) -> int | None:
        opened, todo, links = [os.dup(self._top)], list(reversed(parts)), 0
        try:
            while todo:
                part = todo.pop()
                if part == "..":
                    if len(opened) > 1:
                        os.close(opened.pop())
                    continue
                step = _step(opened[-1], part, create=create)
                if step is None:
                    return None
                if isinstance(step, int):
                    opened.append(step)
                else:
                    links += 1
                    todo += [each for each in reversed(step.split("/")) if each not in {"", "."}]
                    if step.startswith("/"):
                        _close(opened[1:])
                        del opened[1:]
                if links > _MOST_LINKS or len(opened) > _DEEPEST:
                    raise WrongPathError(f"/{'/'.join(parts)[:200]}: too many links or folders")
            return opened.pop()
        finally:
            _close(opened)

    def has_folder(self, parts: Parts) -> bool:
        """Whether a path is a folder, if each folder that it is in is one and no link."""
        path = "/".join(parts) or "."
        try:
            return stat.S_ISDIR(os.stat(path, dir_fd=self._top, follow_symlinks=False).st_mode)
        except OSError:
            return False

    def remove(self, parts: Parts) -> None:
        """Remove a file, a link, or a folder with all that is in it; nothing happens if it is missing."""
        parent = self.folder(parts[:-1], create=False)
        if parent is not None:
            remove(parts[-1], parent)
        self.forget()

    def clear(self, parts: Parts, kept: Collection[Parts]) -> None:
        """Remove what is in a folder, but not the paths in `kept`."""
        folder = self.folder(parts, create=False)
        if folder is not None:
            _clear(folder, parts, kept)
        self.forget()


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _step(folder: int, part: str, *, create: bool) -> int | str | None:
    """Open a folder in a folder, or read the link there; None if it is missing and not created."""
    try:
        return os.open(part, _FOLDER, dir_fd=folder)
    except FileNotFoundError:
        if not create:
            return None
        os.mkdir(part, _NEW_FOLDER, dir_fd=folder)
        os.chmod(part, _NEW_FOLDER, dir_fd=folder)  # whatever the umask
        return os.open(part, _FOLDER, dir_fd=folder)
    except OSError as error:
        if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
            raise
    try:
        return os.readlink(part, dir_fd=folder)
    except OSError:
        raise WrongPathError(f"a path leads through {part!r}, which is a file") from None


def remove(name: str, folder: int) -> None:
    """Remove a file, a link, or a folder with all that is in it, from an open folder; never follow a link."""
    try:
        inner = os.open(name, _FOLDER, dir_fd=folder)
    except FileNotFoundError:
        return
    except OSError:
        os.unlink(name, dir_fd=folder)
        return
    try:
        for each in os.listdir(inner):
            remove(each, inner)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=folder)


def _clear(folder: int, parts: Parts, kept: Collection[Parts]) -> None:
    for name in os.listdir(folder):
        path = (*parts, name)
        if path not in kept:
            remove(name, folder)
            continue
        with contextlib.suppress(NotADirectoryError):  # a file or a link
            inner = os.open(name, _FOLDER, dir_fd=folder)
            try:
                _clear(inner, path, kept)
            finally:
                os.close(inner)
