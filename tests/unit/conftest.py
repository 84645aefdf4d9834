"""Keeps unit tests from starting processes, opening sockets and reading the machine's settings."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

_FORBIDDEN = frozenset(
    {
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.spawn",
        "os.startfile",
        "os.system",
        "pty.spawn",
        "socket.bind",
        "socket.connect",
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "socket.sendmsg",
        "socket.sendto",
        "subprocess.Popen",
    }
)


class _Guard:
    """An audit hook (PEP 578), which also sees what C code does. Hooks cannot be removed, but this one can be off."""

    def __init__(self) -> None:
        self.is_on = False
        self._is_added = False

    def turn_on(self) -> None:
        """Listen from now on. An earlier hook could keep traced threads from starting, in Python 3.11."""
        if not self._is_added:
            sys.addaudithook(self._hear)
        self.is_on = self._is_added = True

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.is_on and event in _FORBIDDEN:
            # Failed is no Exception: code under test that takes every Exception for its own cannot hide it.
            pytest.fail(f"a unit test starts no process and opens no socket: {event}{arguments}")


_guard = _Guard()


@pytest.fixture(autouse=True)
def _no_processes_or_sockets(clean_environment: None) -> Iterator[None]:
    """Fail a test that starts a process or opens a socket."""
    _guard.turn_on()
    yield
    _guard.is_on = False
