"""The folders with root file systems: trees of unpacked layers, which are kept and never change, and those of runs.

`kept/<name>` is a tree (see `builder.rootfs.stack`); its name is the hash of its layers. It gets that name when it is
complete, and processes that use it hold a lock on `kept/<name>.lock`. `runs/<random>` is locked by the process that
uses it.
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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from builder.errors import BuilderError, BuildError, EngineError, RegistryError
from builder.oci.reference import Digest
from builder.parse import Document, MalformedError, parse_document
from builder.process import ProcessGroup, attached_unless_killed, run
from builder.rootfs.confine import Confinement
from builder.rootfs.stack import MisfitError, TreeNotes
from builder.rootfs.task import Program, Task

Layers = tuple[Digest, ...]
Fetch = Callable[[Digest], Path]

_FORMAT: Final = "2"  # of what is kept; another one is unpacked anew
_DAYS: Final = 30  # that a tree stays after its last use
_MOST: Final = 20 << 30  # bytes of all trees; more, and those that were not used for longest are removed
_LANES: Final = 2  # processes that unpack layers
_FRESH: Final = ".new-"  # before the name of a tree that is not complete
_NEW: Final = 60.0  # seconds in which a folder may not be locked yet
_PAUSE: Final = 0.1  # seconds between attempts to lock


class _Answer(Document):
    """The answer of `builder.rootfs.inside`."""

    exit_code: int = 0
    error: str = ""
    fault: Literal["", "layer", "misfit", "program", "full", "system"] = ""


class ProgramError(BuildError):
    """A program could not be started in a root file system; `str()` says why."""


@dataclass(frozen=True, kw_only=True)
class RootFolders:
    """The root file systems below a folder. Processes can share it."""

    folder: Path
    confinement: Confinement
    processes: ProcessGroup

    @contextlib.contextmanager
    def kept(self, layers: Sequence[Digest], fetch: Fetch) -> Iterator[Path]:
        """Yield the tree of these layers, the lowest first, which `fetch` gets as files of the right bytes.

        Nothing may change it. Raises RegistryError if a layer cannot be unpacked, BuildError if the disk is full.
        """
        with self._ready([tuple(layers)], fetch, alone=False) as (place,):
            yield place

    @contextlib.contextmanager
    def stacked(self, base: Sequence[Digest], above: Sequence[Digest], fetch: Fetch) -> Iterator[tuple[Path, ...]]:
        """Yield the trees of which an image consists, the lowest first: one of its base, and one of each layer above.

        A layer that does not stand alone is unpacked over the base, with those between. Otherwise as `kept`.
        """
        above = tuple(reversed(dict.fromkeys(reversed(above))))  # the uppermost of two equal layers hides the other
        with self._ready([(layer,) for layer in above], fetch, alone=True) as trees:
            bound = [number for number, tree in enumerate(trees) if not TreeNotes.of(tree).stands_alone]
            first = bound[-1] + 1 if bound else 0
            with self.kept([*base, *above[:first]], fetch) as lowest:
                yield (lowest, *trees[first:])

    @contextlib.contextmanager
    def _ready(self, layers: Sequence[Layers], fetch: Fetch, *, alone: bool) -> Iterator[list[Path]]:
        """Yield the trees of these layers; those that are missing are unpacked, two at a time."""
        wanted = {self._place(each, alone=alone): each for each in layers}
        while True:
            with self._locked(wanted, fcntl.LOCK_SH):
                if all(place.is_dir() for place in wanted):
                    for place in wanted:
                        os.utime(place)
                    yield list(wanted)
                    return
            missing = [place for place in wanted if not place.is_dir()]
            with self._locked(missing, fcntl.LOCK_EX):
                self._unpack(
                    {place: [*map(fetch, wanted[place])] for place in missing if not place.is_dir()}, alone=alone
                )

    def _place(self, layers: Layers, *, alone: bool) -> Path:
        inputs = [_FORMAT, self.confinement.kind, "alone" if alone else "", *map(str, layers)]
        return self._folder("kept") / hashlib.sha256("\n".join(inputs).encode()).hexdigest()

    def _unpack(self, layers: Mapping[Path, Sequence[Path]], *, alone: bool) -> None:
        fresh = {place.with_name(f"{_FRESH}{place.name}"): place for place in layers}
        for path in fresh:
            self.remove(path)
            path.mkdir()

        def unpack(lane: Sequence[Path]) -> None:
            with self.scratch() as scratch:
                table = {str(path): [*map(str, layers[fresh[path]])] for path in lane}
                owners = self.confinement.abilities.ids
                self.do(Task(kind="unpack", unpack=table, alone=alone, owners=owners, report=""), scratch)

        try:
            with ThreadPoolExecutor(_LANES) as pool:
                list(pool.map(unpack, _lanes({path: _size(layers[place]) for path, place in fresh.items()})))
            for path, place in fresh.items():
                path.rename(place)
        finally:
            for path in fresh:
                self.remove(path)

    @contextlib.contextmanager
    def _locked(self, places: Iterable[Path], kind: int) -> Iterator[None]:
        """Lock trees, all in the same order, so that nobody waits for somebody who waits."""
        with contextlib.ExitStack() as held:
            for place in sorted(places):
                self._hold(Path(f"{place}.lock"), kind, held)
            yield

    def _hold(self, path: Path, kind: int, held: contextlib.ExitStack) -> None:
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with contextlib.ExitStack() as opened:
                opened.callback(os.close, descriptor)
                while not _lock(descriptor, kind):
                    self.processes.raise_if_stopped()
                    time.sleep(_PAUSE)
                if _is_at(descriptor, path):  # it was not removed with its tree meanwhile
                    held.callback(opened.pop_all().close)
                    return

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

    def do(self, task: Task, scratch: Path, *, on_line: Callable[[str], None] = lambda _: None) -> int:
        """Do a task, with its files in the scratch folder; return the program's exit code.

        Each line that the program prints goes to `on_line`. Raises RegistryError for a layer that cannot be unpacked,
        MisfitError, ProgramError if the program cannot be started, BuildError if the disk is full, and InterruptedRun.
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
        if answer.fault == "misfit":
            raise MisfitError(answer.error)
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
        """Remove what was not used for a month, or longest where it is too much, and what killed runs left."""
        now = time.time()
        for path in self._folder("runs").iterdir():
            if _age(path, now) > _NEW:
                with _idle(path) as is_idle:
                    if is_idle:
                        self.remove(path)
        total = 0
        for lock in sorted(self._folder("kept").glob("*.lock"), key=lambda path: _age(path.with_suffix(""), now)):
            place = lock.with_suffix("")
            total += _bytes_of(place)
            if _age(place, now) > _DAYS * 86400 or total > _MOST or not place.is_dir():
                with _idle(lock) as is_idle:
                    if is_idle:
                        self._discard(place)
                        lock.unlink(missing_ok=True)

    def _discard(self, place: Path) -> None:
        """Remove a tree, which nobody takes for a whole one while that lasts, or if it fails."""
        fresh = place.with_name(f"{_FRESH}{place.name}")
        self.remove(fresh)
        with contextlib.suppress(OSError):
            place.rename(fresh)
        self.remove(fresh)

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


def _lanes(sizes: Mapping[Path, int]) -> Sequence[Sequence[Path]]:
    """Divide work by its size, for two processes."""
    lanes: tuple[list[Path], ...] = tuple([] for _ in range(_LANES))
    taken = [0] * _LANES
    for path in sorted(sizes, key=lambda each: (-sizes[each], each)):
        lane = taken.index(min(taken))
        lanes[lane].append(path)
        taken[lane] += sizes[path]
    return [lane for lane in lanes if lane]


def _size(files: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in files)


def _bytes_of(tree: Path) -> int:
    try:
        return TreeNotes.of(tree).size
    except (OSError, ValueError, LookupError):
        return 0


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


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
