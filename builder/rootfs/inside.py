"""The program that works on root file systems: it makes one in a folder, runs a program in it, removes it.

It is a process of its own because it may have to be root of a user namespace, because it gives up what the others need,
and because whatever it mounts goes with it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from builder.rootfs import kernel
from builder.rootfs.clone import copy_file
from builder.rootfs.stack import MisfitError, copy_stack, mount_stack, unpack_tree
from builder.rootfs.supervisor import NotStartedError, end_children, run_program
from builder.rootfs.task import Program, Task
from builder.rootfs.tree import Parts, RootTree, WrongPathError, path_parts, remove
from builder.rootfs.unpack import UnpackError, maps_all_ids, unpack_blob

# Of the device nodes of this machine, those that a program may have (mknod(1), Linux's devices.txt).
_DEVICES: Final = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9)}
_DEVICE_LINKS: Final = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}


def do_task(path: str) -> None:
    """Do the task in a file, and write the answer to its report."""
    signal.signal(signal.SIGTERM, _stop)
    os.umask(0o022)
    task = Task.from_table(json.loads(Path(path).read_text(encoding="utf-8")))
    try:
        answer = _do(task)
    except UnpackError as error:
        answer = {"error": str(error), "fault": "layer"}
    except MisfitError as error:
        answer = {"error": str(error), "fault": "misfit"}
    except (NotStartedError, WrongPathError) as error:
        answer = {"error": str(error), "fault": "program"}
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        fault = "full" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "system"
        answer = {"error": f"{where}{error.strerror or error}", "fault": fault}
    with contextlib.suppress(OSError):  # the disk may be full: no answer is one too
        Path(task.report).write_text(json.dumps(answer), encoding="utf-8")


def _stop(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(143)


def _do(task: Task) -> dict[str, Any]:
    if task.kind == "probe":
        return _probe(Path(task.target))
    if task.kind == "remove":
        _remove(Path(task.target))
        return {}
    if task.kind == "unpack":
        for tree, layers in task.unpack.items():
            _unpack(Path(tree), layers, task)
        return {}
    assert task.program is not None  # noqa: S101 - it is to be run
    return {"exit_code": _make(task, task.program)}


def _unpack(tree: Path, layers: Sequence[str], task: Task) -> None:
    try:
        unpack_tree(tree, [*map(Path, layers)], alone=task.alone, owners=task.owners)
    except BaseException:
        _remove(tree)  # the disk may be full, and the answer takes room
        raise


def _probe(folder: Path) -> dict[str, Any]:
    """What is allowed here, tried in children."""
    spaces = kernel.NEW_MOUNTS | kernel.NEW_PROCESSES | kernel.NEW_NETWORK

    def isolate() -> None:
        kernel.unshare(spaces)
        kernel.keep_mounts_private()

    return {
        "chroot": _is_allowed(lambda: os.chroot(folder)),
        "isolation": _is_allowed(isolate),
        "ids": maps_all_ids(),
    }


def _is_allowed(attempt: Callable[[], None]) -> bool:
    pid = os.fork()
    if not pid:
        try:
            attempt()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


def _make(task: Task, program: Program) -> int:
    """Make the root file system `root` in the target, and run the program; return its exit code."""
    target, trees = Path(task.target), [*map(Path, task.trees)]
    root = target / "root"
    is_mounted = False
    try:
        isolated = _isolate(program)
        root.mkdir(0o755)
        is_mounted = isolated and mount_stack(trees, target)
        if not is_mounted:
            copy_stack(trees, root)
        if isolated and not is_mounted:
            kernel.bind(root, root)  # so that all that is mounted in it can be unmounted at once
            is_mounted = True
        for layer, at in task.layers:
            with Path(layer).open("rb") as blob:
                unpack_blob(blob, root, at)
        return _run(root, program, isolated=isolated)
    finally:
        _clean(target, is_mounted=is_mounted)


def _isolate(program: Program) -> bool:
    """Move to namespaces of mounts, processes and, if asked for, network; whether that is allowed."""
    try:
        kernel.unshare(kernel.NEW_MOUNTS | kernel.NEW_PROCESSES | (0 if program.network else kernel.NEW_NETWORK))
        kernel.keep_mounts_private()
    except OSError:
        return False
    if not program.network:
        with contextlib.suppress(OSError):
            kernel.bring_up_loopback()
    return True


def _clean(target: Path, *, is_mounted: bool) -> None:
    end_children()
    if is_mounted:
        with contextlib.suppress(OSError):
            kernel.unmount(target / "root")
    _remove(target)


def _remove(target: Path) -> None:
    """Remove a folder with all that is in it."""
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        remove(target.name, folder)
    finally:
        os.close(folder)


def _run(root: Path, program: Program, *, isolated: bool) -> int:
    kernel.adopt_orphans()
    with RootTree(root) as tree:
        _add_devices(tree, isolated=isolated)
        for path, source in program.bring.items():
            _bring(tree, path_parts(path), Path(source))
        if program.secrets:
            _bring_secrets(tree, program, isolated=isolated)
        if program.take_from and isolated:
            kernel.bind(Path(program.take_to), _opened(tree, path_parts(program.take_from)))
    code = run_program(root, program, isolated=isolated)
    end_children()
    if program.take_from:
        _take(root, program, is_there=isolated)
    return code


def _opened(tree: RootTree, parts: Parts) -> Path:
    """The path by which the kernel finds a folder that was looked up in the tree; something may be mounted there."""
    folder = tree.folder(parts, create=True)
    path = Path(f"/proc/self/fd/{folder}")
    if not path.exists():
        raise OSError(errno.ENOENT, "there is no /proc, which builder needs")
    return path


def _bring(tree: RootTree, parts: Parts, source: Path) -> None:
    """Copy a file or a folder of this machine to a path in the root file system, where it replaces what is there."""
    if source.is_dir():
        tree.folder(parts, create=True)
        for each in sorted(source.iterdir()):
            _bring(tree, (*parts, each.name), each)
        return
    tree.remove(parts)
    target = _opened(tree, parts[:-1]) / parts[-1]
    status = source.stat()
    copy_file(os.path.realpath(source), str(target), status.st_size)
    target.chmod(stat.S_IMODE(status.st_mode) | stat.S_IRUSR)


def _bring_secrets(tree: RootTree, program: Program, *, isolated: bool) -> None:
    """Copy the secrets in, to memory where mounts are allowed."""
    for folder in {path_parts(path)[:-1] for path in program.secrets} if isolated else ():
        kernel.mount_memory(_opened(tree, folder), "0755")
        tree.forget()
    for path, source in program.secrets.items():
        parts = path_parts(path)
        tree.remove(parts)
        target = os.open(_opened(tree, parts[:-1]) / parts[-1], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
        with os.fdopen(target, "wb") as file:
            file.write(Path(source).read_bytes())  # it may be in another process's memory, without a path


def _add_devices(tree: RootTree, *, isolated: bool) -> None:
    if isolated:
        kernel.mount_memory(_opened(tree, ("dev",)), "0755")
        tree.forget()
    folder = tree.folder(("dev",), create=True)
    assert folder is not None  # noqa: S101 - it was created
    for name, (major, minor) in _DEVICES.items():
        with contextlib.suppress(FileExistsError):
            _add_device(folder, name, os.makedev(major, minor), isolated=isolated)
    for name, link in _DEVICE_LINKS.items():
        with contextlib.suppress(FileExistsError):
            os.symlink(link, name, dir_fd=folder)
    with contextlib.suppress(FileExistsError):
        os.mkdir("shm", dir_fd=folder)
        os.chmod("shm", 0o1777, dir_fd=folder)


def _add_device(folder: int, name: str, device: int, *, isolated: bool) -> None:
    if not isolated:
        try:
            os.mknod(name, 0o666 | stat.S_IFCHR, device, dir_fd=folder)
            os.chmod(name, 0o666, dir_fd=folder)
            os.close(os.open(name, os.O_RDONLY, dir_fd=folder))
        except PermissionError:  # no right to, or the file system is mounted without devices
            remove(name, folder)
        else:
            return
    if isolated or name == "null":  # a file in its place: what is written there is lost with the folder
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o666, dir_fd=folder))
        os.chmod(name, 0o666, dir_fd=folder)
    if isolated:
        kernel.bind(Path("/dev", name), Path(f"/proc/self/fd/{folder}/{name}"))


def _take(root: Path, program: Program, *, is_there: bool) -> None:
    """Move the regular files of a folder out of the root file system, unless they are there; remove others."""
    if not is_there:
        with RootTree(root) as tree:
            for source in sorted(_opened(tree, path_parts(program.take_from)).iterdir()):
                _move(source, Path(program.take_to, source.name))
    for path in Path(program.take_to).iterdir():
        if not stat.S_ISREG(path.lstat().st_mode):
            _remove(path)


def _move(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        if stat.S_ISREG(source.lstat().st_mode):
            copy_file(str(source), str(target), source.lstat().st_size)
