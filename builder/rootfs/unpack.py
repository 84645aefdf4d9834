"""Unpacks the layers of an image into a folder (layer.md of the OCI image specification).

A layer is input from outside. Nothing of it is written outside the folder, whatever its paths, links and whiteouts say.
Device nodes are left out: whoever runs the image provides them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from builder.oci.compression import DAMAGED, compression_of, unpacked
from builder.rootfs.tree import Parts, RootTree, WrongPathError, path_parts, remove

_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"
_RESERVED: Final = ".wh..wh."  # of other programs than engines
_CHUNK: Final = 1 << 20
_BUFFER: Final = 1 << 16  # tarfile copies what is left of it for each header
_XATTR: Final = "SCHILY.xattr."
_XATTRS: Final = ("user.", "security.capability")
_OVERLAYS: Final = "user.overlay."  # would change what is seen where layers are mounted over each other
_BLOCK: Final = 4096
_MOST: Final = 64 << 30  # bytes of one layer; more is a bomb
_LONGEST_NAME: Final = 1 << 20  # bytes of a header with names and attributes
_NAMES: Final = {
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
}  # fmt: skip
# With what tarfile raises for some headers.
_MALFORMED: Final[tuple[type[Exception], ...]] = (*DAMAGED, ValueError, LookupError, ArithmeticError, RecursionError)
# typeshed lacks them.
_WRONG_HEADER: Final = (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError)  # type: ignore[attr-defined]
_FAULTY_PATH: Final = {errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EMLINK}
_SHOWN: Final = 200  # characters of a name in an error
_UNSUPPORTED: Final = {errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EINVAL}
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class UnpackError(Exception):
    """A layer that cannot be unpacked; `str()` says why."""


@dataclass(frozen=True, kw_only=True)
class UnpackedLayer:
    """What was unpacked: about the bytes that it takes, and the folders that it has files in without an entry for them.

    It `stands_alone` if it means the same over any others: it removes nothing, and no path leads through a link of it.
    """

    size: int
    implied: frozenset[Parts]
    stands_alone: bool


def unpack_blob(blob: IO[bytes], folder: Path, at: str = "", *, owners: bool = True) -> UnpackedLayer:
    """Unpack a layer over what is in the folder: a tar, compressed or not, from a file that can seek.

    `at` is a path in the root file system that its paths are below. All files belong to this user without `owners`, who
    then may read and change them all, and where this user is not root or has one id.

    Raises UnpackError if the layer is malformed or has a path that leads out, OSError if it cannot be written.
    """
    compression = compression_of(blob.read(4))
    blob.seek(0)
    with RootTree(folder) as tree, unpacked(blob, compression) as plain:
        try:
            with tarfile.open(fileobj=plain, mode="r|", bufsize=_BUFFER, tarinfo=_Entry) as tar:
                return _Unpacking(tree, tar, path_parts(at), owners=owners).run()
        except _MALFORMED as error:
            raise UnpackError(f"it is not a valid tar: {error}") from error


class _Entry(tarfile.TarInfo):
    """An entry whose header is valid: tarfile takes a damaged one for the end, and reads names of any size at once."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Entry:
        """Parse a header; raise ReadError."""
        try:
            entry = super().frombuf(buf, encoding, errors)
        except _WRONG_HEADER as error:
            raise tarfile.ReadError(str(error)) from error
        if entry.type in _NAMES and entry.size > _LONGEST_NAME:
            raise tarfile.ReadError(f"a header of {entry.size} bytes")
        return entry


class _Unpacking:
    """One layer that is being unpacked; `_written` are its paths so far, with the folders that they are in.

    `_entered` are those folders, and `_folders` those that have entries, with their times.
    """

    def __init__(self, tree: RootTree, tar: tarfile.TarFile, at: Parts, *, owners: bool) -> None:
        self._tree = tree
        self._tar = tar
        self._at = at
        self._written: set[Parts] = set()
        self._entered: set[Parts] = {()}
        self._folders: dict[Parts, float] = {}
        self._size = 0
        self._removes = False
        self._replaced = False
        self._owns_all = owners and os.geteuid() == 0 and maps_all_ids()
        self._least_mode = 0 if owners else 0o700  # this user has to read and remove all of it, without being root

    def run(self) -> UnpackedLayer:
        """Unpack all of it."""
        while entry := self._tar.next():
            try:
                self._unpack(entry)
            except (WrongPathError, ValueError, OverflowError) as error:
                raise UnpackError(f"entry {_shown(entry.name)}: {error}") from error
            except OSError as error:
                if error.errno not in _FAULTY_PATH:
                    raise
                raise UnpackError(f"entry {_shown(entry.name)}: {error.strerror}") from error
            self._tar.members = []  # type: ignore[attr-defined]  # a layer may have a million entries
        for parts, time in reversed(self._folders.items()):
            with contextlib.suppress(WrongPathError):
                folder = self._tree.folder(parts, create=False)
                if folder is not None:
                    os.utime(folder, (time, time))
        return UnpackedLayer(
            size=self._size, implied=frozenset(self._entered - self._folders.keys()),
            stands_alone=not self._removes and all(map(self._tree.has_folder, self._entered)),
        )  # fmt: skip

    def _unpack(self, entry: tarfile.TarInfo) -> None:
        parts = (*self._at, *path_parts(entry.name))
        name = parts[-1] if parts else ""
        if name.startswith(_WHITEOUT):
            self._removes = True
            self._remove_lower(parts[:-1], name)
            return
        kind = self._writer(entry)
        if kind is None or (not parts and not entry.isdir()):
            return
        self._size += _BLOCK + entry.size
        if self._size > _MOST:
            raise WrongPathError(f"the layer has more than {_MOST >> 30} GiB")
        if parts:
            folder = self._tree.folder(parts[:-1], create=True)
            assert folder is not None  # noqa: S101 - it was created
            kind(entry, folder, name)
            self._note(parts)
            if self._replaced:
                self._tree.forget()  # what was opened may have been below it
                self._replaced = False
        if entry.isdir():
            self._set_folder(parts, entry)

    def _note(self, parts: Parts) -> None:
        self._written.add(parts)
        while (parts := parts[:-1]) not in self._entered:
            self._entered.add(parts)
            self._written.add(parts)

    def _writer(self, entry: tarfile.TarInfo) -> Callable[[tarfile.TarInfo, int, str], None] | None:
        if entry.isdir():
            return self._make_folder
        if entry.issym():
            return self._make_link
        if entry.islnk():
            return self._link
        return self._write if entry.isreg() else None

    def _remove_lower(self, folder: Parts, name: str) -> None:
        """Remove what lower layers have; what this one has stays, in whatever order its entries are."""
        if name == _OPAQUE:
            self._tree.clear(folder, self._written)
            return
        if name.startswith(_RESERVED):
            return
        removed = name.removeprefix(_WHITEOUT)
        if removed in {"", ".", ".."}:
            raise WrongPathError("it removes a folder that it is in")
        if (*folder, removed) not in self._written:
            self._tree.remove((*folder, removed))

    def _make_folder(self, _: tarfile.TarInfo, folder: int, name: str) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=folder)
        except FileExistsError:
            if not _is_folder(name, folder):
                remove(name, folder)
                self._replaced = True
                os.mkdir(name, 0o700, dir_fd=folder)

    def _set_folder(self, parts: Parts, entry: tarfile.TarInfo) -> None:
        opened = self._tree.folder(parts, create=False)
        assert opened is not None  # noqa: S101 - it was created
        self._set_attributes(opened, entry)
        os.utime(opened, (entry.mtime, entry.mtime))  # as at the end; a time that is none is told of this entry
        self._folders[parts] = entry.mtime

    def _make_link(self, entry: tarfile.TarInfo, folder: int, name: str) -> None:
        if not entry.linkname:
            raise WrongPathError("it is a link to nothing")
        self._replace(name, folder)
        os.symlink(entry.linkname, name, dir_fd=folder)
        if self._owns_all:
            os.chown(name, entry.uid, entry.gid, dir_fd=folder, follow_symlinks=False)
        os.utime(name, (entry.mtime, entry.mtime), dir_fd=folder, follow_symlinks=False)

    def _link(self, entry: tarfile.TarInfo, folder: int, name: str) -> None:
        target = (*self._at, *path_parts(entry.linkname))
        kept = os.dup(folder)  # the next call closes it
        try:
            source = self._tree.folder(target[:-1], create=False)
            if source is None or not target or _is_folder(target[-1], source):
                raise WrongPathError(f"it is a link to {entry.linkname!r}, which is no file of the image")
            if target == (*self._at, *path_parts(entry.name)):
                return
            self._replace(name, kept)
            os.link(target[-1], name, src_dir_fd=source, dst_dir_fd=kept, follow_symlinks=False)
        except FileNotFoundError:
            raise WrongPathError(f"it is a link to {entry.linkname!r}, which is not there") from None
        finally:
            os.close(kept)

    def _write(self, entry: tarfile.TarInfo, folder: int, name: str) -> None:
        content = self._tar.extractfile(entry)
        assert content is not None  # noqa: S101 - it is a regular file
        self._replace(name, folder)
        with os.fdopen(os.open(name, _NEW_FILE, 0o600, dir_fd=folder), "wb", buffering=0) as file:
            shutil.copyfileobj(content, file, _CHUNK)
            self._set_attributes(file.fileno(), entry)
            os.utime(file.fileno(), (entry.mtime, entry.mtime))

    def _replace(self, name: str, folder: int) -> None:
        """Make room for a file or a link."""
        try:
            os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            return
        except (IsADirectoryError, PermissionError):
            remove(name, folder)
        self._replaced = True

    def _set_attributes(self, opened: int, entry: tarfile.TarInfo) -> None:
        if self._owns_all:
            os.fchown(opened, entry.uid, entry.gid)
        os.fchmod(opened, entry.mode & 0o7777 | self._least_mode)  # after the owner, a change of which clears bits
        for name, value in entry.pax_headers.items():
            attribute = name.removeprefix(_XATTR)
            if attribute != name and attribute.startswith(_XATTRS) and not attribute.startswith(_OVERLAYS):
                try:
                    os.setxattr(opened, attribute, value.encode("utf-8", "surrogateescape"))
                except OSError as error:
                    if error.errno not in _UNSUPPORTED:
                        raise


def _shown(name: str) -> str:
    return repr(name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…")


def _is_folder(name: str, folder: int) -> bool:
    try:
        os.close(os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder))
    except (NotADirectoryError, FileNotFoundError):
        return False
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return False
    return True


def maps_all_ids() -> bool:
    """Whether files can have other owners here: not in a user namespace with one id (user_namespaces(7))."""
    try:
        lines = Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines()
    except OSError:
        return True
    return sum(int(line.split()[2]) for line in lines) > 1
