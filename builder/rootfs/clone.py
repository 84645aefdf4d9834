"""Copies a root file system: owners, modes, times, attributes and hard links included, sockets left out."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path
from typing import Final

_CHUNK: Final = 1 << 20
_NO_COPY: Final = {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM}


def clone_tree(source: Path, target: Path) -> None:
    """Copy what is in a folder into another one, which exists, over what is there; no link there is followed."""
    _Clone(is_over=any(target.iterdir())).copy_folder(os.fspath(source), os.fspath(target))


class _Clone:
    """One copy; `_linked` are the copies of files that have several links, by inode."""

    def __init__(self, *, is_over: bool) -> None:
        self._linked: dict[int, str] = {}
        self._is_over = is_over

    def copy_folder(self, source: str, target: str) -> None:
        """Copy one folder into one that exists."""
        with os.scandir(source) as entries:
            for entry in entries:
                self._copy(entry, f"{target}/{entry.name}")
        copy_status(os.stat(source), source, target)

    def _copy(self, entry: os.DirEntry[str], target: str) -> None:
        status = entry.stat(follow_symlinks=False)
        is_folder = stat.S_ISDIR(status.st_mode)
        if not (self._is_over and _make_room(target, is_folder=is_folder)) and is_folder:
            os.mkdir(target, 0o700)
        if is_folder:
            self.copy_folder(entry.path, target)
            return
        if status.st_nlink > 1:
            if status.st_ino in self._linked:
                os.link(self._linked[status.st_ino], target, follow_symlinks=False)
                return
            self._linked[status.st_ino] = target
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(entry.path), target)
        elif stat.S_ISREG(status.st_mode):
            copy_file(entry.path, target, status.st_size)
        else:
            return
        copy_status(status, entry.path, target)


def _make_room(target: str, *, is_folder: bool) -> bool:
    """Remove what is at a path, unless it is a folder and one is to be there; whether it is."""
    try:
        was_folder = stat.S_ISDIR(os.lstat(target).st_mode)
    except FileNotFoundError:
        return False
    if was_folder and is_folder:
        return True
    if was_folder:
        shutil.rmtree(target)
    else:
        os.unlink(target)
    return False


def copy_file(source: str, target: str, size: int) -> None:
    """Copy the content of a file to a new one; where the file system can, the two share their blocks."""
    read = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        write = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _copy_content(read, write, size)
        finally:
            os.close(write)
    finally:
        os.close(read)


def _copy_content(read: int, write: int, size: int) -> None:
    try:
        while size > 0 and (copied := os.copy_file_range(read, write, size)):
            size -= copied
    except OSError as error:
        if error.errno not in _NO_COPY:
            raise
        with os.fdopen(os.dup(read), "rb") as source, os.fdopen(os.dup(write), "wb") as target:
            shutil.copyfileobj(source, target, _CHUNK)


def copy_status(status: os.stat_result, source: str, target: str) -> None:
    """Give a copy the owner, the mode, the attributes and the times of the file, folder or link that it is of."""
    is_link = stat.S_ISLNK(status.st_mode)
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not is_link:
        os.chmod(target, stat.S_IMODE(status.st_mode))
        for name in os.listxattr(source):
            if name.startswith(("user.", "security.capability")):
                os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
