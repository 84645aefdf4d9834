"""A BuildKit that speaks gRPC on a socket, as remote and Kubernetes builders do: that of a Docker engine.

An engine has its BuildKit behind an upgrade of an HTTP connection (`POST /grpc`); this opens one for each connection.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_UPGRADE: Final = b"POST /grpc HTTP/1.1\r\nHost: engine\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
_PIECE: Final = 1 << 16


@contextlib.contextmanager
def buildkit_of(engine: str, path: Path) -> Iterator[str]:
    """Expose the BuildKit of the engine, `unix:///…`, on a socket at the path; yield the socket's address."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    acceptor = threading.Thread(target=_accept, args=(listener, engine.removeprefix("unix://")), daemon=True)
    acceptor.start()
    try:
        yield f"unix://{path}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        acceptor.join(10)
        listener.close()


def _accept(listener: socket.socket, engine: str) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(client, engine), daemon=True).start()


def _serve(client: socket.socket, engine: str) -> None:
    with client, socket.socket(socket.AF_UNIX) as server:
        server.connect(engine)
        server.sendall(_UPGRADE)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += server.recv(1)
        back = threading.Thread(target=_pipe, args=(server, client), daemon=True)
        back.start()
        _pipe(client, server)
        back.join()


def _pipe(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE):
            target.sendall(piece)
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
