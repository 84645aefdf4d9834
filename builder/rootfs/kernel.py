"""System calls that Python 3.10 lacks: namespaces, mounts, capabilities (unshare(2), mount(2), prctl(2))."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

NEW_MOUNTS: Final = 0x00020000
NEW_PROCESSES: Final = 0x20000000
NEW_NETWORK: Final = 0x40000000

_MS_REC: Final = 0x4000
_MS_BIND: Final = 0x1000
_MS_PRIVATE: Final = 0x40000
_MS_NOSUID: Final = 0x2
_MS_NODEV: Final = 0x4
_MS_NOEXEC: Final = 0x8
_PR_SET_PDEATHSIG: Final = 1
_PR_CAPBSET_DROP: Final = 24
_PR_SET_CHILD_SUBREAPER: Final = 36
_LAST_CAPABILITY: Final = 63
# What Docker gives a container (moby, oci/caps), without those by which root leaves a chroot or reaches the machine:
# CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, NET_BIND_SERVICE, SETFCAP.
_KEPT_CAPABILITIES: Final = {0, 1, 3, 4, 5, 6, 7, 10, 31}

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Move this process, or for NEW_PROCESSES its next children, to new namespaces; raise OSError if not allowed."""
    _check(_libc.unshare(flags), "unshare")


def _mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    arguments = (source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), os.fsencode(options))
    _check(_libc.mount(*arguments), f"mount {kind or source} on {target}")


def keep_mounts_private() -> None:
    """Keep what is mounted from now on within this mount namespace."""
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE, "")


def mount_overlay(lowers: Sequence[str], upper: str, work: str, target: str) -> None:
    """Mount `upper` over `lowers`, the lowest first, which do not change; raise OSError if the file system cannot.

    The paths are relative to the current folder, and short: all of them fit into 4,096 characters.
    """
    layers = ":".join(reversed(lowers))
    options = f"lowerdir={layers},upperdir={upper},workdir={work}"
    try:
        _mount("overlay", target, "overlay", 0, options)
    except OSError:
        _mount("overlay", target, "overlay", 0, f"{options},userxattr")  # in a user namespace


def mount_memory(target: Path, mode: str) -> None:
    """Mount an empty file system in memory; `mode` is that of its top, in octal."""
    _mount("tmpfs", str(target), "tmpfs", _MS_NOSUID, f"mode={mode}")


def mount_processes(target: Path) -> None:
    """Mount the process file system of the process namespace that this process is in."""
    _mount("proc", str(target), "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "")


def bind(source: Path, target: Path) -> None:
    """Show a file or a folder at another path too."""
    _mount(str(source), str(target), "", _MS_BIND, "")


def bring_up_loopback() -> None:
    """Bring up the loopback interface of a new network namespace (netdevice(7))."""
    request, up = 0x8914, 0x1  # SIOCSIFFLAGS, IFF_UP
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, request, struct.pack("16sH14s", b"lo", up, b""))


def end_with_parent(number: int) -> None:
    """Have the kernel send this process a signal when its parent ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def adopt_orphans() -> None:
    """Make this process the parent of its children's children, when those end."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def drop_capabilities() -> None:
    """Take from programs that are started from now on what they do not need; not from this process itself."""
    for number in range(_LAST_CAPABILITY + 1):
        if number not in _KEPT_CAPABILITIES:
            _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)  # fails for one that the kernel does not know


def unmount(target: Path) -> None:
    """Unmount what is mounted at a path, at the latest when nothing uses it any more."""
    detach = 2
    _check(_libc.umount2(os.fsencode(target), detach), f"unmount {target}")
