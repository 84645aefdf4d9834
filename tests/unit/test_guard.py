"""The guard in conftest.py: without it, a unit test could depend on the machine or the network."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from builder.process import run

_ATTEMPTS: dict[str, Callable[[], object]] = {
    "subprocess.Popen": lambda: subprocess.Popen([sys.executable, "-V"]),
    "subprocess.run": lambda: subprocess.run([sys.executable, "-V"], check=False),
    "builder.command.run": lambda: run([sys.executable, "-V"]),
    "os.system": lambda: os.system("true"),  # noqa: S605
    "os.fork": lambda: os.fork() or os._exit(0),
    "os.posix_spawn": lambda: os.posix_spawn(sys.executable, [sys.executable, "-V"], {}),
    "socket.create_connection": lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
    "socket.getaddrinfo": lambda: socket.getaddrinfo("builder.invalid", 443),
}


@pytest.mark.parametrize("attempt", _ATTEMPTS.values(), ids=_ATTEMPTS.keys())
def test_attempt_fails(attempt: Callable[[], object]) -> None:
    """Broken: unit tests can start processes and open sockets."""
    with pytest.raises(pytest.fail.Exception, match="starts no process and opens no socket"):
        attempt()


def test_attempt_in_a_thread_fails() -> None:
    """Broken: code in a thread pool escapes the guard."""
    with ThreadPoolExecutor(1) as pool, pytest.raises(pytest.fail.Exception, match=r"socket\.connect|getaddrinfo"):
        pool.submit(socket.create_connection, ("127.0.0.1", 9), 1).result()
