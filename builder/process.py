"""Starts processes, and nothing else in the package does: from an argv tuple, logged with secrets redacted."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from builder.errors import CommandError, InterruptedRun
from builder.redaction import redact
from builder.terminal import own_terminal

log = logging.getLogger(__name__)
_LONGEST_RUN: Final = 600.0  # seconds
_MOST_OUTPUT: Final = 64 << 20  # bytes


def quoted(argv: Sequence[str]) -> str:
    """Return the command line quoted for a shell, with secrets redacted."""
    return redact(shlex.join(argv))


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Defer SIGINT and SIGTERM to the end of the block; raise KeyboardInterrupt there if one arrived.

    Does nothing outside the main thread, which gets no signals.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {
        number: signal.signal(number, lambda arrived, _: received.append(arrived))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if received:
        raise KeyboardInterrupt


@dataclass(frozen=True, kw_only=True)
class Completed:
    """A command that ended, and its decoded output."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str

    def check(self, what: str) -> Completed:
        """Return self if the exit code is 0; raise CommandError with what failed and the command's output."""
        if self.returncode:
            output = redact(self.stderr.strip() or self.stdout.strip())
            raise CommandError(
                f"{what}: {output or f'exit code {self.returncode}'}", hint=f"command: {quoted(self.argv)}"
            )
        return self


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    seconds: float = _LONGEST_RUN,
    limit: int = _MOST_OUTPUT,
) -> Completed:
    """Run a command to its end, whatever its exit code.

    Raises CommandError if it cannot be started, takes more seconds, or prints more than `limit` bytes.
    """
    log.debug("$ %s", quoted(argv))
    hint = f"command: {quoted(argv)}"
    with tempfile.TemporaryFile() as given:
        given.write((stdin or "").encode())
        given.seek(0)
        try:
            process = subprocess.Popen(
                tuple(argv), cwd=cwd, env=env, stdin=None if stdin is None else given,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        except (OSError, ValueError) as error:  # a ValueError for a NUL in an argument
            reason = error.strerror if isinstance(error, OSError) else error
            raise CommandError(f"cannot start {argv[0]}: {reason}", hint=hint) from error
    with process:
        try:
            stdout, stderr = _outputs(process, seconds, limit)
        except _LimitError as error:
            raise CommandError(f"{argv[0]} {error}; it was stopped", hint=hint) from None
        finally:
            process.kill()  # nothing happens if it has ended
    return Completed(argv=tuple(argv), returncode=process.returncode, stdout=stdout, stderr=stderr)


def attached(argv: Sequence[str], *, env: Mapping[str, str], on_interrupt: Callable[[], object]) -> int:
    """Run a command with this process's own input and output, and return its exit code; 130 if it is interrupted.

    After a signal `on_interrupt` is called, which is to end the command. Raises CommandError if it cannot be started.
    """
    process = _start_attached(argv, env, None)
    try:
        return process.wait()
    except KeyboardInterrupt:
        on_interrupt()
        process.wait()
        return InterruptedRun.exit_code


def attached_unless_killed(argv: Sequence[str], *, env: Mapping[str, str]) -> int:
    """Run a command as `attached` does, which gets Ctrl-C itself; at a terminal it has one of its own.

    SIGTERM ends the command, and raises InterruptedRun.
    """
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    with own_terminal() if is_terminal else _ignoring_interrupts() as terminal:
        process = _start_attached(argv, env, terminal)
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise InterruptedRun("interrupted") from None


def _start_attached(argv: Sequence[str], env: Mapping[str, str], terminal: int | None) -> subprocess.Popen[bytes]:
    log.debug("$ %s", quoted(argv))
    sys.stdout.flush()
    try:
        return subprocess.Popen(tuple(argv), env=dict(env), stdin=terminal, stdout=terminal, stderr=terminal)
    except OSError as error:
        raise CommandError(f"cannot start {argv[0]}: {error.strerror}", hint=f"command: {quoted(argv)}") from error


@contextlib.contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Leave Ctrl-C to a command, which inherits that it is ignored, and may change it for itself."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


class _LimitError(Exception):
    """A process that takes too long or prints too much; `str()` says which."""


def _outputs(process: subprocess.Popen[bytes], seconds: float, limit: int) -> tuple[str, str]:
    """Read what a process prints until it ends, and return its stdout and stderr; raise _LimitError."""
    end = time.monotonic() + seconds
    too_long = _LimitError(f"has not ended after {seconds:.0f} seconds")
    printed = {stream.fileno(): bytearray() for stream in (process.stdout, process.stderr) if stream}
    with selectors.DefaultSelector() as selector:
        for number in printed:
            selector.register(number, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, end - time.monotonic()))
            if not ready:
                raise too_long
            for number, _ in ((key.fd, mask) for key, mask in ready):
                piece = os.read(number, 1 << 16)
                printed[number] += piece
                if not piece:
                    selector.unregister(number)
            if sum(map(len, printed.values())) > limit:
                raise _LimitError(f"prints more than {limit:,} bytes")
    try:
        process.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise too_long from None
    stdout, stderr = (text.decode(errors="replace") for text in printed.values())
    return stdout, stderr


class ProcessGroup:
    """The processes of one run, which an interruption stops from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self.stopped = threading.Event()

    def raise_if_stopped(self) -> None:
        """Raise InterruptedRun after `stop`."""
        if self.stopped.is_set():
            raise InterruptedRun("interrupted")

    def stop(self) -> None:
        """Send SIGTERM to every running process and its children, and prevent further starts."""
        self.stopped.set()
        with self._lock:
            for process in self._running:
                _signal_group(process, signal.SIGTERM)

    def stream(
        self, argv: Sequence[str], *, env: Mapping[str, str], on_line: Callable[[str], None], keep: Sequence[int] = ()
    ) -> int:
        """Run a command, pass each line of its stderr to `on_line`, and return its exit code.

        `keep` are file descriptors that it inherits.
        Raises CommandError if it cannot be started, and InterruptedRun if `stop` ended it.
        """
        log.debug("$ %s", quoted(argv))
        with self._started(argv, env, keep) as process:
            for line in process.stderr or ():
                on_line(line.rstrip("\n"))
            returncode = process.wait()
        self.raise_if_stopped()
        return returncode

    @contextlib.contextmanager
    def _started(
        self, argv: Sequence[str], env: Mapping[str, str], keep: Sequence[int]
    ) -> Iterator[subprocess.Popen[str]]:
        with self._lock:
            self.raise_if_stopped()
            try:
                # In a session of its own: Ctrl-C must reach it, and its children, through stop() alone.
                process = subprocess.Popen(
                    tuple(argv), env=dict(env), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE, encoding="utf-8", errors="replace", start_new_session=True,
                    pass_fds=tuple(keep),
                )  # fmt: skip
            except OSError as error:
                raise CommandError(f"cannot start {argv[0]}: {error.strerror}") from error
            self._running.add(process)
        try:
            with _ending_with_this_process(process):
                yield process
        finally:
            if process.poll() is None:
                _signal_group(process, signal.SIGKILL)
                process.wait()
            if process.stderr:
                process.stderr.close()
            with self._lock:
                self._running.discard(process)


# Waits until its input ends, because the process at the other end ended, and then stops a process group.
_WATCH: Final = """
import os, signal, sys, time
sys.stdin.read()
for number in (signal.SIGTERM, signal.SIGKILL):
    try:
        os.killpg(int(sys.argv[1]), number)
    except OSError:
        break
    time.sleep(5)
"""


@contextlib.contextmanager
def _ending_with_this_process(process: subprocess.Popen[str]) -> Iterator[None]:
    """Have another process stop this one's child if this one is killed during the block, which it cannot notice."""
    argv = (sys.executable, "-I", "-S", "-c", _WATCH, str(process.pid))
    output = subprocess.DEVNULL
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
    ) as watcher:  # fmt: skip
        try:
            yield
        finally:
            watcher.kill()


def _signal_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
