"""The only place that starts a process: an argv tuple, a quoted echo, redacted text, stderr in the error."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.errors import CommandError, InterruptedRun

log = logging.getLogger(__name__)
_SECRET_NAME = re.compile(r"PASSWORD|PASSWD|TOKEN|SECRET|CREDENTIAL|PRIVATE_KEY|API_?KEY", re.IGNORECASE)
_USERINFO = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)[^/\s'\"]+@", re.IGNORECASE)
_SHORTEST_SECRET = 4  # a shorter value would blank out ordinary words


def redact(text: str) -> str:
    """Return the text without credentials in URLs and without the values of secret-looking variables."""
    text = _USERINFO.sub(r"\g<scheme>***@", text)
    secrets = {value for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    for secret in sorted(secrets, key=len, reverse=True):  # a short one may be the beginning of a long one
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
    return text


def quoted(argv: Sequence[str]) -> str:
    """Return the command line as a shell would take it, redacted."""
    return redact(shlex.join(argv))


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back until the block ends, and then raise KeyboardInterrupt if one came."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {
        number: signal.signal(number, lambda got, _: came.append(got)) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


@dataclass(frozen=True, kw_only=True)
class Completed:
    """How a command ended."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str

    def check(self, what: str) -> Completed:
        """Return self, or raise CommandError with what failed and the command's own last words."""
        if self.returncode:
            said = redact(self.stderr.strip() or self.stdout.strip())
            raise CommandError(
                f"{what}: {said or f'exit code {self.returncode}'}", hint=f"command: {quoted(self.argv)}"
            )
        return self


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
) -> Completed:
    """Run to the end and return what it printed; raise CommandError only where it cannot be started."""
    log.debug("$ %s", quoted(argv))
    try:
        done = subprocess.run(
            tuple(argv),
            cwd=cwd,
            env=env,
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise CommandError(f"cannot start {argv[0]}: {error.strerror}", hint=f"command: {quoted(argv)}") from error
    return Completed(argv=tuple(argv), returncode=done.returncode, stdout=done.stdout, stderr=done.stderr)


class ProcessGroup:
    """The processes of one run, so that an interruption can stop all of them from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self.stopped = threading.Event()

    def stop(self) -> None:
        """Ask every running process, with its children, to end, and let no further one start."""
        self.stopped.set()
        with self._lock:
            for process in self._running:
                _signal_group(process, signal.SIGTERM)

    def stream(self, argv: Sequence[str], *, env: Mapping[str, str], on_line: Callable[[str], None]) -> int:
        """Run the command, hand each line of its stderr to `on_line`, return its exit code.

        Raises CommandError where it cannot be started and InterruptedRun where `stop` ended it.
        """
        log.debug("$ %s", quoted(argv))
        with self._started(argv, env) as process:
            for line in process.stderr or ():
                on_line(line.rstrip("\n"))
            returncode = process.wait()
        if self.stopped.is_set():
            raise InterruptedRun("interrupted")
        return returncode

    @contextlib.contextmanager
    def _started(self, argv: Sequence[str], env: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
        with self._lock:
            if self.stopped.is_set():
                raise InterruptedRun("interrupted")
            try:
                # A session of its own, so that Ctrl-C reaches it through stop() alone, children included.
                process = subprocess.Popen(
                    tuple(argv), env=dict(env), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE, encoding="utf-8", errors="replace", start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise CommandError(f"cannot start {argv[0]}: {error.strerror}") from error
            self._running.add(process)
        try:
            yield process
        finally:
            if process.poll() is None:
                _signal_group(process, signal.SIGKILL)
                process.wait()
            with self._lock:
                self._running.discard(process)


def _signal_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
