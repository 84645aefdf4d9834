"""A web server on this machine, for one test at a time."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import pytest


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server, and its requests."""

    host: str
    requests: list[Request]


TLS_ADDRESS: Final = "127.0.0.2"  # this machine too, and a name that builder does not ask in the clear


@contextlib.contextmanager
def serving(
    answer: Callable[[Request], Answer], monkeypatch: pytest.MonkeyPatch, *, tls: ssl.SSLContext | None = None
) -> Iterator[Server]:
    """Answer requests on a port of this machine, without a proxy; with `tls`, only through that."""
    requests: list[Request] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            request = Request(method=self.command, path=self.path, headers=headers, body=body)
            requests.append(request)
            answered = answer(request)
            self.send_response(answered.status)
            for name, value in {"Content-Length": str(len(answered.body)), **answered.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answered.body)

        do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    address = TLS_ADDRESS if tls else "127.0.0.1"
    monkeypatch.setenv("NO_PROXY", f"localhost,127.0.0.1,{TLS_ADDRESS}")
    monkeypatch.setenv("no_proxy", f"localhost,127.0.0.1,{TLS_ADDRESS}")
    with ThreadingHTTPServer((address, 0), Handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Server(host=f"{address}:{server.server_port}", requests=requests)
        finally:
            server.shutdown()
            thread.join()
