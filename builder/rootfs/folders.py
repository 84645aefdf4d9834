"""The folders with root file systems: unpacked images, which are kept and never change, and copies for single runs.

`kept/<name>` has the layers of one image; its name is their hash. It gets that name when it is complete, and processes
that use it hold a lock on `kept/<name>.lock`. `runs/<random>` is locked by the process that uses it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from builder.errors import BuilderError, BuildError, EngineError, RegistryError
from builder.oci.reference import Digest
from builder.parse import Document, MalformedError, parse_document
from builder.process import ProcessGroup, attached_unless_killed, run
from builder.rootfs.confine import Confinement
from builder.rootfs.task import Program, Task

_FORMAT: Final = "1"  # of what is kept; another one is unpacked anew
_DAYS: Final = 30  # that an unpacked image stays after its last use
_NEW: Final = 60.0  # seconds in which a folder may not be locked yet
_PAUSE: Final = 0.1  # seconds between attempts to lock


class _Answer(Document):
    """The answer of `builder.rootfs.inside`."""

    exit_code: int = 0
    error: str = ""
    fault: Literal["", "layer", "program", "full", "system"] = ""


class ProgramError(BuildError):
    """A program could not be started in a root file system; `str()` says why."""


@dataclass(frozen=True, kw_only=True)
class RootFolders:
    """The root file systems below a folder. Processes can share it."""

    folder: Path
    confinement: Confinement
    processes: ProcessGroup

    @contextlib.contextmanager
    def kept(self, layers: Sequence[Digest], fetch: Callable[[Digest], Path]) -> Iterator[Path]:
        """Yield the root file system of these layers, the lowest first, which `fetch` gets as files of the right bytes.

        Nothing may change it. Raises RegistryError if a layer cannot be unpacked, BuildError if the disk is full.
        """
        inputs = [_FORMAT, self.confinement.kind, *map(str, layers)]
        place = self._folder("kept") / hashlib.sha256("\n".join(inputs).encode()).hexdigest()
        while True:
            with self._locked(place, fcntl.LOCK_SH):
                if place.is_dir():
                    os.utime(place)
                    yield place / "root"
                    return
            with self._locked(place, fcntl.LOCK_EX):
                if not place.is_dir():
                    self._unpack([fetch(layer) for layer in layers], place)

    def _unpack(self, layers: Sequence[Path], place: Path) -> None:
        fresh = place.with_name(f".new-{place.name}")
        self.remove(fresh)
        fresh.mkdir()
        with self.scratch() as scratch:
            paths = tuple((str(layer), "") for layer in layers)
            owners = self.confinement.abilities.ids
            task = Task(target=str(fresh), layers=paths, keep=True, owners=owners, report="")
            self.do(task, scratch, on_line=lambda _: None)
        fresh.rename(place)

    @contextlib.contextmanager
    def _locked(self, place: Path, kind: int) -> Iterator[None]:
        descriptor = os.open(f"{place}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while not _lock(descriptor, kind):
                self.processes.raise_if_stopped()
                time.sleep(_PAUSE)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a new folder for one run; remove it afterwards."""
        path = Path(tempfile.mkdtemp(dir=self._folder("runs")))
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _lock(descriptor, fcntl.LOCK_EX)
            yield path
        finally:
            self.remove(path)
            os.close(descriptor)

    def do(self, task: Task, scratch: Path, *, on_line: Callable[[str], None]) -> int:
        """Do a task, with its files in the scratch folder; return the program's exit code.

        Each line that the program prints goes to `on_line`. Raises RegistryError for a layer that cannot be unpacked,
        ProgramError if the program cannot be started, BuildError if the disk is full, and InterruptedRun.
        """
        last = [""]

        def read(line: str) -> None:
            last[0] = line
            on_line(line)

        with _open_secrets(task.program) as (program, keep), _written(task, program, scratch) as (path, report):
            code = self.processes.stream(self.confinement.argv(path), env=os.environ, on_line=read, keep=keep)
            return self._exit_code(report, last[0] or f"it ended with exit code {code}")

    def attach(self, task: Task, scratch: Path) -> int:
        """Do as `do`, but the program has this process's own input, output and terminal."""
        program = replace(task.program, attached=True) if task.program else None
        with _written(task, program, scratch) as (path, report):
            code = attached_unless_killed(self.confinement.argv(path), env=os.environ)
            return self._exit_code(report, f"it ended with exit code {code}")

    def _exit_code(self, report: Path, reason: str) -> int:
        """The program's exit code; `reason` says why there is no report, if there is none."""
        try:
            answer = parse_document(_Answer, report.read_bytes())
        except (OSError, MalformedError):
            raise self._fault("", reason) from None
        if answer.error:
            raise self._fault(answer.fault, answer.error)
        return answer.exit_code

    def _fault(self, fault: str, reason: str) -> BuilderError:
        if fault == "layer":
            return RegistryError(f"an image cannot be unpacked: {reason}", hint="use another image, or build it anew")
        if fault == "program":
            return ProgramError(reason)
        if fault == "full":
            hint = "free space there, or name another folder with BUILDER_CACHE_DIR"
            return BuildError(f"no space left on device: {self.folder}", hint=hint)
        return EngineError(f"a root file system in {self.folder} cannot be used: {reason}")

    def remove(self, path: Path) -> None:
        """Remove a folder, whoever owns what is in it; a failure leaves it to a later run."""
        if not path.exists():
            return
        if not self.confinement.prefix:
            shutil.rmtree(path, ignore_errors=True)
            return
        with tempfile.TemporaryDirectory(prefix="builder-") as folder, contextlib.suppress(BuilderError):
            task = Path(folder, "task")
            table = Task(kind="remove", target=str(path), report=str(Path(folder, "report"))).to_table()
            task.write_text(json.dumps(table), encoding="utf-8")
            run(self.confinement.argv(task))

    def sweep(self) -> None:
        """Remove what was not used for a month, and what killed runs left."""
        now = time.time()
        for path in self._folder("runs").iterdir():
            if _age(path, now) > _NEW:
                with _idle(path) as is_idle:
                    if is_idle:
                        self.remove(path)
        for path in self._folder("kept").glob("*.lock"):
            place = path.with_suffix("")
            if place.is_dir() and _age(place, now) > _DAYS * 86400:
                with _idle(path) as is_idle:
                    if is_idle:
                        self.remove(place)

    def _folder(self, name: str) -> Path:
        path = self.folder / name
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)  # images may have programs that are set-user-ID
            self.folder.chmod(0o700)
        except OSError as error:
            hint = "name another folder with BUILDER_CACHE_DIR"
            raise EngineError(f"cannot write to {path}: {error.strerror}", hint=hint) from error
        return path


@contextlib.contextmanager
def _written(task: Task, program: Program | None, scratch: Path) -> Iterator[tuple[Path, Path]]:
    """Write the task with this program to a file; yield its path, and that of the report."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        path, report = Path(folder, "task"), Path(folder, "report")
        table = replace(task, report=str(report), program=program).to_table()
        path.write_text(json.dumps(table), encoding="utf-8")
        yield path, report


@contextlib.contextmanager
def _open_secrets(program: Program | None) -> Iterator[tuple[Program | None, list[int]]]:
    """Yield the program with its secrets as open files, and their descriptors.

    A secret may be in this process's memory, which a process in another user namespace may not open by its path.
    """
    with contextlib.ExitStack() as opened:
        sources = program.secrets if program else {}
        files = {path: opened.enter_context(Path(source).open("rb")).fileno() for path, source in sources.items()}
        secrets = {path: f"/proc/self/fd/{number}" for path, number in files.items()}
        yield (replace(program, secrets=secrets) if program else None), list(files.values())


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _idle(path: Path) -> Iterator[bool]:
    """Lock a file or folder, if nobody has locked it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        yield _lock(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def _age(path: Path, now: float) -> float:
    try:
        return now - path.stat().st_mtime
    except OSError:
        return 0.0
