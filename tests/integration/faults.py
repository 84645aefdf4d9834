"""A proxy between builder and a registry that causes failures when a test tells it to.

    with between(registry.host) as proxy:
        proxy.on("PUT", "/manifests/3.12$", Answer(status=502), nth=2)

Plain HTTP on a port of this machine. Bodies stream through in pieces, whatever their size.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Final

_TIMEOUT: Final = 120.0  # seconds between two bytes, on either side
_PIECE: Final = 1 << 16
_LINE: Final = 1 << 16
_TLS_HANDSHAKE: Final = b"\x16"
_HOP_BY_HOP: Final = frozenset(
    ("connection", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")
)


@dataclass(kw_only=True)
class Exchange:
    """A request that arrived, and its state so far; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    status: int | None = None  # None: no answer, at least not yet
    received: int = 0  # bytes of the request's body that were read


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Answer instead of the registry. The request's body is read first unless `early`, as some servers do not."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    early: bool = False


@dataclass(frozen=True, kw_only=True)
class CutRequest:
    """Pass on this many bytes of the request's body, then drop both connections."""

    after: int


@dataclass(frozen=True, kw_only=True)
class CutResponse:
    """Pass on the head of the answer and this many bytes of its body, then drop the connection."""

    after: int


@dataclass(frozen=True, kw_only=True)
class HangUp:
    """Drop the connection without an answer; with `forward`, after the registry has handled the request."""

    forward: bool = False


@dataclass(frozen=True)
class Gone:
    """Drop all connections and refuse new ones until `come_back`."""


@dataclass(frozen=True)
class Hold:
    """Keep the connection and never answer, as long as the proxy runs."""


@dataclass(frozen=True, kw_only=True)
class Slow:
    """Pass everything on, at this many bytes per second in either direction, several pieces per second."""

    rate: int


@dataclass(frozen=True)
class Call:
    """Run this first. If it returns an action, that is the answer; with None the rule does not apply."""

    function: Callable[[Exchange], Action | None]


Action = Answer | CutRequest | CutResponse | HangUp | Gone | Hold | Slow | Call


@dataclass(kw_only=True)
class Rule:
    """What happens to requests of a method and path: from the `nth` on (1: the first), `times` of them (None: all).

    `method` matches as a whole, `path` anywhere in path and query; both are regular expressions.
    """

    method: str
    path: str
    action: Action
    nth: int = 1
    times: int | None = 1
    matched: int = 0  # requests so far

    def takes(self, exchange: Exchange) -> bool:
        """Count the request; return whether the rule applies to it."""
        if not (re.fullmatch(self.method, exchange.method) and re.search(self.path, exchange.path)):
            return False
        self.matched += 1
        return self.matched >= self.nth and (self.times is None or self.matched < self.nth + self.times)


class _HungUpError(Exception):
    """The connection has ended."""


class FaultProxy:
    """A running proxy. `exchanges` has every request in the order of arrival.

    `gate` answers requests in the upstream's stead, or returns None for those that are to go on; rules come before it.
    """

    def __init__(self, upstream: str, *, gate: Callable[[Exchange], Answer | None] | None = None) -> None:
        self.exchanges: list[Exchange] = []
        self.surprises: list[Exception] = []  # faults of the proxy itself
        self._rules: list[Rule] = []
        self._upstream = upstream
        self._gate = gate
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._present = threading.Event()
        self._present.set()
        self._sockets: set[socket.socket] = set()
        self._handlers: list[threading.Thread] = []
        self._listener = _listener()
        self.port: int = self._listener.getsockname()[1]
        self.host = f"localhost:{self.port}"
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def on(self, method: str, path: str, action: Action, *, nth: int = 1, times: int | None = 1) -> Rule:
        """Add a rule after the existing ones; of the rules that apply, the first one acts."""
        rule = Rule(method=method, path=path, action=action, nth=nth, times=times)
        with self._lock:
            self._rules.append(rule)
        return rule

    def forget(self) -> None:
        """Drop all rules and records."""
        with self._lock:
            self._rules.clear()
            self.exchanges.clear()

    def seen(self, method: str = ".*", path: str = "") -> list[Exchange]:
        """The requests with this method and path, matched as rules match."""
        with self._lock:
            every = list(self.exchanges)
        return [each for each in every if re.fullmatch(method, each.method) and re.search(path, each.path)]

    def go_away(self) -> None:
        """Do what `Gone` does, now."""
        self._present.clear()
        # On Linux a listener that was shut down refuses connections, keeps a port that it was bound to, and can listen
        # again.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._drop_all()

    def come_back(self) -> None:
        """Listen again, on the same port."""
        if not self._present.is_set():
            self._listener.listen(128)
            self._present.set()

    def close(self) -> None:
        """Stop; raise any error inside the proxy itself."""
        self._closing.set()
        self.go_away()
        self._present.set()
        self._acceptor.join(10)
        self._listener.close()
        for handler in self._handlers:
            handler.join(10)
        if self.surprises:
            raise self.surprises[0]

    def _drop_all(self) -> None:
        with self._lock:
            for each in self._sockets:
                _shut(each)

    def _accept(self) -> None:
        while not self._closing.is_set():
            self._present.wait()
            try:
                client, _ = self._listener.accept()
            except OSError:
                continue
            handler = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._handlers = [each for each in self._handlers if each.is_alive()] + [handler]
            handler.start()

    @contextlib.contextmanager
    def _watched(self, connection: socket.socket) -> Iterator[None]:
        """Let `go_away` end what is being waited for on the connection."""
        with self._lock:
            self._sockets.add(connection)
        try:
            if not self._present.is_set() or self._closing.is_set():
                raise _HungUpError
            yield
        finally:
            with self._lock:
                self._sockets.discard(connection)

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(_TIMEOUT)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with client, client.makefile("rb") as reader, self._watched(client):
                try:
                    if client.recv(1, socket.MSG_PEEK) == _TLS_HANDSHAKE:
                        # Docker tries TLS on this machine first, and goes on in the clear where HTTP answers.
                        client.recv(_PIECE)
                        client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                        return
                    while self._exchange(client, reader):
                        pass
                finally:
                    _shut(client)
        except (_HungUpError, OSError):
            pass
        except Exception as error:  # told by `close`, as a thread has nobody else to tell
            self.surprises.append(error)

    def _exchange(self, client: socket.socket, reader: BinaryIO) -> bool:
        """One request and its answer; whether another may follow on the connection."""
        first = reader.readline(_LINE)
        if not first.strip():
            return False
        method, path, version = first.decode("iso-8859-1").split()
        fields = tuple(http.client.parse_headers(reader).items())
        exchange = Exchange(method=method, path=path, headers={name.lower(): value for name, value in fields})
        body = _Body(client, reader, exchange)
        action = self._action(exchange)
        if isinstance(action, HangUp) and not action.forward:
            raise _HungUpError
        if isinstance(action, Gone):
            self.go_away()
            raise _HungUpError
        if isinstance(action, Hold):
            self._closing.wait()
            raise _HungUpError
        if action is None and self._gate:
            action = self._gate(exchange)
        if isinstance(action, Answer):
            body_is_read = not (action.early or "expect" in exchange.headers)
            if body_is_read:
                body.drain()
            _answer(client, exchange, action, last=not body_is_read)
            return body_is_read
        self._forward(client, exchange, fields, body, action)
        return version == "HTTP/1.1" and exchange.headers.get("connection", "").lower() != "close"

    def _action(self, exchange: Exchange) -> Action | None:
        """What the first rule whose turn it is wants done; all rules count the request."""
        with self._lock:
            self.exchanges.append(exchange)
            due = [rule for rule in self._rules if rule.takes(exchange)]
        for rule in due:
            action: Action | None = rule.action
            while isinstance(action, Call):
                action = action.function(exchange)
            if action:
                return action
        return None

    def _forward(
        self,
        client: socket.socket,
        exchange: Exchange,
        fields: tuple[tuple[str, str], ...],
        body: _Body,
        action: Action | None,
    ) -> None:
        """Have the upstream answer, with what the action does on the way."""
        rate = action.rate if isinstance(action, Slow) else 0
        upstream = http.client.HTTPConnection(self._upstream, timeout=_TIMEOUT)
        with contextlib.closing(upstream):
            upstream.connect()
            with self._watched(upstream.sock):
                self._send(upstream, exchange, fields, body, action)
                response = upstream.getresponse()
                if isinstance(action, HangUp):
                    raise _HungUpError
                body.drain()
                exchange.status = response.status
                chunked = _send_head(client, exchange, response)
                left = action.after if isinstance(action, CutResponse) else None
                most = min(_PIECE, max(1, rate // 8)) if rate else _PIECE
                while piece := response.read1(most if left is None else min(left, most)):
                    client.sendall(_chunk(piece) if chunked else piece)
                    left = None if left is None else left - len(piece)
                    self._pause(len(piece) / rate if rate else 0)
                if left is not None:
                    raise _HungUpError
                if chunked:
                    client.sendall(_chunk(b""))

    def _send(
        self,
        upstream: http.client.HTTPConnection,
        exchange: Exchange,
        fields: tuple[tuple[str, str], ...],
        body: _Body,
        action: Action | None,
    ) -> None:
        """Send the request on; an upstream that stops listening may have answered already, and is asked next."""
        rate = action.rate if isinstance(action, Slow) else 0
        upstream.putrequest(exchange.method, exchange.path, skip_host=True, skip_accept_encoding=True)
        for name, value in fields:
            if name.lower() not in _HOP_BY_HOP:
                upstream.putheader(name, value)
        if body.chunked:
            upstream.putheader("Transfer-Encoding", "chunked")
        upstream.putheader("Connection", "close")
        listens = True
        with contextlib.suppress(OSError):
            upstream.endheaders()
        for piece in body.pieces(action.after if isinstance(action, CutRequest) else None):
            if listens:
                try:
                    upstream.send(_chunk(piece) if body.chunked else piece)
                except OSError:
                    listens = False
            self._pause(len(piece) / rate if rate else 0)
        if isinstance(action, CutRequest):
            raise _HungUpError
        if body.chunked and listens:
            with contextlib.suppress(OSError):
                upstream.send(_chunk(b""))

    def _pause(self, seconds: float) -> None:
        if seconds and self._closing.wait(seconds):
            raise _HungUpError


class _Body:
    """A request's body, read in pieces and once."""

    def __init__(self, client: socket.socket, reader: BinaryIO, exchange: Exchange) -> None:
        self.chunked = "chunked" in exchange.headers.get("transfer-encoding", "").lower()
        self._client = client
        self._reader = reader
        self._exchange = exchange
        self._invited = "expect" not in exchange.headers
        self._pieces = (
            self._read_chunks() if self.chunked else self._read(int(exchange.headers.get("content-length", 0)))
        )

    def pieces(self, limit: int | None = None) -> Iterator[bytes]:
        """What is left of the body, or so many bytes of it."""
        if not self._invited:
            self._invited = True
            self._client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        for piece in self._pieces:
            self._exchange.received += len(piece)
            if limit is not None and len(piece) >= limit:
                yield piece[:limit]
                return
            limit = None if limit is None else limit - len(piece)
            yield piece

    def drain(self) -> None:
        """Read what is left and drop it."""
        for _ in self.pieces():
            pass

    def _read(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self._reader.read1(min(size, _PIECE))  # type: ignore[attr-defined]
            if not piece:
                raise _HungUpError
            size -= len(piece)
            yield piece

    def _read_chunks(self) -> Iterator[bytes]:
        while True:
            line = self._reader.readline(_LINE)
            if not line:
                raise _HungUpError
            size = int(line.split(b";")[0], 16)
            if not size:
                break
            yield from self._read(size)
            self._reader.readline(_LINE)
        while self._reader.readline(_LINE).strip():
            pass  # trailers


def _listener() -> socket.socket:
    """A listener bound to a port by number: one that the system chose would be given back by `shutdown`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
    return socket.create_server(address, backlog=128)


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def _answer(client: socket.socket, exchange: Exchange, answer: Answer, *, last: bool) -> None:
    exchange.status = answer.status
    headers = {"Content-Length": str(len(answer.body)), **({"Connection": "close"} if last else {}), **answer.headers}
    lines = [
        f"HTTP/1.1 {answer.status} {http.client.responses.get(answer.status, 'Unknown')}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    body = b"" if exchange.method == "HEAD" else answer.body
    client.sendall("\r\n".join([*lines, "", ""]).encode("iso-8859-1") + body)


def _send_head(client: socket.socket, exchange: Exchange, response: http.client.HTTPResponse) -> bool:
    """Pass on status and headers; whether the body is to follow in chunks."""
    bodiless = exchange.method == "HEAD" or response.status in {204, 304}
    chunked = not bodiless and "Content-Length" not in response.headers
    lines = [
        f"HTTP/1.1 {response.status} {response.reason}",
        *(f"{name}: {value}" for name, value in response.headers.items() if name.lower() not in _HOP_BY_HOP),
        *(["Transfer-Encoding: chunked"] if chunked else []),
    ]
    client.sendall("\r\n".join([*lines, "", ""]).encode("iso-8859-1"))
    return chunked


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def between(upstream: str, *, gate: Callable[[Exchange], Answer | None] | None = None) -> Iterator[FaultProxy]:
    """A proxy before the upstream, a `host:port` that speaks plain HTTP."""
    proxy = FaultProxy(upstream, gate=gate)
    try:
        yield proxy
    finally:
        proxy.close()
