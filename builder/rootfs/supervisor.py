"""Runs one program with a folder as its root, reaps what it leaves behind, and stops it in time.

It does so in a process of its own, the first one of its process namespace where that is allowed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import termios
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from builder.rootfs import kernel
from builder.rootfs.task import Program
from builder.rootfs.tree import RootTree

_TIMED_OUT: Final = 124  # as of timeout(1)
_NOT_STARTED: Final = 125
_LOADED: Final = (warnings,)  # os.execvpe imports it
_CHILD: Final = {signal.SIGCHLD}
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class NotStartedError(Exception):
    """The program could not be started; `str()` says why."""


@dataclass(frozen=True)
class _User:
    uid: int
    gid: int
    home: str


def run_program(root: Path, program: Program, *, isolated: bool) -> int:
    """Run the program and return its exit code; with `isolated`, the next child begins a process namespace.

    Raises NotStartedError.
    """
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(read)
        _supervise(root, program, write, isolated=isolated)
    os.close(write)
    with os.fdopen(read, "r", encoding="utf-8") as said:
        reason = said.read()
    _, status = os.waitpid(pid, 0)
    if reason:
        raise NotStartedError(reason)
    return _exit_code(status)


def _supervise(root: Path, program: Program, write: int, *, isolated: bool) -> NoReturn:
    code = _NOT_STARTED
    try:
        kernel.end_with_parent(signal.SIGKILL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, _CHILD)
        streams = _open_streams(program)
        if isolated:
            _mount_processes(root)
        sys.meta_path.clear()  # what is not imported by now would come from the image
        os.chroot(root)
        os.chdir("/")
        user = _find_user(program.user)
        kernel.drop_capabilities()
        code = _wait(_start(program, user, streams, write), program.seconds)
    except BaseException as error:
        os.write(write, f"{error}".encode())
    finally:
        os._exit(code)


def _mount_processes(root: Path) -> None:
    """Mount /proc; not where a container hides parts of its own."""
    with RootTree(root) as tree, contextlib.suppress(OSError):
        kernel.mount_processes(Path(f"/proc/self/fd/{tree.folder(('proc',), create=True)}"))


def _open_streams(program: Program) -> tuple[int, int, int]:
    """The program's stdin, stdout and stderr; without an output file both go to this process's stderr."""
    if program.attached:
        return 0, 1, 2
    nothing = os.open(os.devnull, os.O_RDONLY)
    if not program.output:
        return nothing, 2, 2
    new = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    return nothing, os.open(program.output, new, 0o600), os.open(f"{program.output}.err", new, 0o600)


def _find_user(name: str) -> _User:
    """The user of `uid:gid`, or of a name in the passwd file; root if there is no name. Runs in the image's root."""
    login, _, group = name.partition(":")
    users = _rows("/etc/passwd")
    groups = {row[0]: row[2] for row in _rows("/etc/group") if len(row) > 2}
    found = next((row for row in users if len(row) > 5 and login in {row[0], row[2]}), None)
    if not name or login == "0":
        return _User(0, int(groups.get(group, group or "0")), found[5] if found and login else "/root")
    uid = found[2] if found else login
    gid = groups.get(group, group) or (found[3] if found else "0")
    if not (uid.isdecimal() and gid.isdecimal()):
        raise ValueError(f"the image has no user {name!r}")
    return _User(int(uid), int(gid), found[5] if found else "/")


def _rows(path: str) -> list[list[str]]:
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line.split(":") for line in text.splitlines()]


def _start(program: Program, user: _User, streams: tuple[int, int, int], write: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    what = "start"
    try:
        terminal = program.attached and os.isatty(0)
        if terminal or not program.attached:  # else it stays in the group that gets Ctrl-C
            os.setsid()
        if terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        with contextlib.suppress(PermissionError):  # in a user namespace with one id, there are no other groups
            os.setgroups([])
        what = f"run as {user.uid}:{user.gid}: this machine's user namespace lacks these ids, or no right to"
        if (user.uid, user.gid) != (0, 0):
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
        what = f"enter {program.workdir}"
        os.chdir(program.workdir)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _CHILD)
        environment = {"PATH": _PATH, "HOME": user.home, **program.environment}
        what = f"start {program.argv[0]}"
        os.execvpe(program.argv[0], program.argv, environment)
    except BaseException as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        os.write(write, f"cannot {what}: {reason}".encode())
    finally:
        os._exit(_NOT_STARTED)


def _wait(pid: int, seconds: float | None) -> int:
    """Wait for the program, and for what it leaves behind as long as it runs; return its exit code."""
    end = time.monotonic() + seconds if seconds else None
    while True:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended == pid:
            return _exit_code(status)
        if ended:
            continue
        left = end - time.monotonic() if end else 3600.0
        if left <= 0:
            os.killpg(pid, signal.SIGKILL)
            return _TIMED_OUT
        signal.sigtimedwait(_CHILD, left)


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def end_children() -> None:
    """Stop what a program left behind that no process namespace ends: it has become this process's child."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    with contextlib.suppress(OSError, ChildProcessError):
        while pids := children.read_text(encoding="ascii").split():
            for pid in pids:
                os.kill(int(pid), signal.SIGKILL)
                os.waitpid(int(pid), 0)
