"""A registry on this machine that offers one image, so that an engine pulls only the blobs that it lacks.

It answers the pull requests of the OCI distribution specification, and nothing else.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import IO, Final, Protocol

from builder.errors import BuilderError
from builder.oci.manifest import Manifest
from builder.oci.reference import Digest, is_digest

NAME: Final = "builder/image"


class Content(Protocol):
    """An image: its manifest, and its blobs by digest, the config among them."""

    @property
    def manifest(self) -> Manifest:
        """The manifest."""

    def open_blob(self, digest: Digest) -> IO[bytes]:
        """Open a blob of the image, compressed as the manifest says."""


@contextlib.contextmanager
def serve(content: Content) -> Iterator[str]:
    """Serve an image on a free port of the loopback interface; yield its reference, `127.0.0.1:<port>/<name>@…`.

    If a blob cannot be opened, the engine's pull fails, and that error is raised at the end.
    """
    failures: list[BuilderError] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(content, failures))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}/{NAME}@{content.manifest.digest}"
    except BuilderError as error:
        raise failures[0] if failures else error from None
    finally:
        server.shutdown()
        server.server_close()


def _handler(content: Content, failures: list[BuilderError]) -> type[BaseHTTPRequestHandler]:
    named = {layer.digest for layer in content.manifest.body.layers}
    if content.manifest.body.config:
        named.add(content.manifest.body.config.digest)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
            """Print nothing."""

        def _answer(self, *, with_body: bool) -> None:
            kind, _, name = self.path.removeprefix(f"/v2/{NAME}/").partition("/")
            if self.path == "/v2/":
                self._send_bytes(b"{}", "application/json", with_body=with_body)
            elif kind == "manifests" and name == str(content.manifest.digest):
                self._send_bytes(content.manifest.content, content.manifest.media_type, with_body=with_body)
            elif kind == "blobs" and is_digest(name) and name in named:
                self._send_blob(Digest.from_str(name), with_body=with_body)
            else:
                self._send_head(404, 0)

        def _send_bytes(self, body: bytes, media_type: str, *, with_body: bool) -> None:
            self._send_head(200, len(body), media_type, str(content.manifest.digest))
            if with_body:
                self.wfile.write(body)

        def _send_blob(self, digest: Digest, *, with_body: bool) -> None:
            try:
                opened = content.open_blob(digest)
            except BuilderError as error:
                failures.append(error)
                self._send_head(500, 0)
                return
            with opened:
                size = opened.seek(0, 2)
                opened.seek(0)
                self._send_head(200, size, "application/octet-stream", str(digest))
                if with_body:
                    shutil.copyfileobj(opened, self.wfile, 1 << 20)

        def _send_head(self, status: int, size: int, media_type: str = "text/plain", digest: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(size))
            self.send_header("Content-Type", media_type)
            if digest:
                self.send_header("Docker-Content-Digest", digest)
            self.end_headers()

    return Handler
