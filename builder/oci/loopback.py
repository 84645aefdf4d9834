"""A registry on this machine that offers one image, so that an engine pulls only the blobs that it lacks.

It answers the pull requests of the OCI distribution specification, and nothing else.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import IO, Final, Protocol

from builder.errors import BuilderError
from builder.oci.manifest import Manifest
from builder.oci.reference import Digest

NAME: Final = "builder/image"
_TLS_HANDSHAKE: Final = b"\x16"  # the type of a client's first record (RFC 8446, section 5.1)
_NO_TLS: Final = b"HTTP/1.0 400 Bad Request\r\nConnection: close\r\n\r\n"
_POLL_PERIOD: Final = 0.02  # seconds until the server notices that it shall end


class Content(Protocol):
    """An image: its manifest, and its blobs by digest, the config among them."""

    @property
    def manifest(self) -> Manifest:
        """The manifest."""

    def open_blob(self, digest: Digest) -> IO[bytes]:
        """Open a blob of the image, compressed as the manifest says."""


class _Server(ThreadingHTTPServer):
    """Offers one image; remembers why a blob could not be opened."""

    daemon_threads = True

    def __init__(self, content: Content) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.failures: list[Exception] = []
        body = content.manifest.body
        self.blobs = {part.digest for part in (*body.layers, *([body.config] if body.config else []))}

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing about a client that went away."""


@contextlib.contextmanager
def serve(content: Content) -> Iterator[str]:
    """Serve an image on a free port of the loopback interface; yield its reference, `127.0.0.1:<port>/<name>@…`.

    If a blob could not be opened, the error is raised at the end.
    """
    server = _Server(content)
    threading.Thread(target=server.serve_forever, args=[_POLL_PERIOD], daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}/{NAME}@{content.manifest.digest}"
    finally:
        server.shutdown()
        server.server_close()
        if server.failures:
            raise server.failures[0]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two packets; the second must not wait for an acknowledgement
    server: _Server

    def handle_one_request(self) -> None:
        """Engines try TLS first, also on the loopback interface, and HTTP if the answer looks like HTTP."""
        if self.rfile.peek(1)[:1] == _TLS_HANDSHAKE:  # type: ignore[attr-defined]
            self.wfile.write(_NO_TLS)
            self.close_connection = True
        else:
            super().handle_one_request()

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Print nothing."""

    def _answer(self, *, with_body: bool) -> None:
        manifest = self.server.content.manifest
        kind, _, name = self.path.removeprefix(f"/v2/{NAME}/").partition("/")
        if self.path == "/v2/":
            self._send(io.BytesIO(b"{}"), "application/json", with_body=with_body)
        elif kind == "manifests" and name == str(manifest.digest):
            self._send(io.BytesIO(manifest.content), manifest.media_type, with_body=with_body, digest=name)
        elif kind == "blobs" and name in self.server.blobs:
            self._send_blob(name, with_body=with_body)
        else:
            self.send_error(404)

    def _send_blob(self, digest: str, *, with_body: bool) -> None:
        try:
            blob = self.server.content.open_blob(Digest.from_str(digest))
        except (BuilderError, OSError) as error:
            self.server.failures.append(error)
            self.send_error(500)
            return
        with blob:
            self._send(blob, "application/octet-stream", with_body=with_body, digest=digest)

    def _send(self, body: IO[bytes], media_type: str, *, with_body: bool, digest: str = "") -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(body.seek(0, 2)))
        self.send_header("Content-Type", media_type)
        if digest:
            self.send_header("Docker-Content-Digest", digest)
        self.end_headers()
        body.seek(0)
        if with_body:
            shutil.copyfileobj(body, self.wfile, 1 << 20)
