"""An index of many projects with many files each (PEP 691), as a process of its own: `python -m bench.index`."""

from __future__ import annotations

import gzip
import hashlib
import json
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

VERSIONS: Final = 100  # of each project, with FILES files each: pages as long as those of well-known projects
FILES: Final = 20
_TYPE: Final = "application/vnd.pypi.simple.v1+json"
_ETAG: Final = '"1"'


def digest(name: str) -> str:
    """The SHA-256 of the file with this name, in hexadecimal."""
    return hashlib.sha256(name.encode()).hexdigest()


def filenames(project: str, version: int) -> list[str]:
    """The files of a version of a project: wheels for several Pythons, and an sdist."""
    minors = range(7, 6 + FILES)
    wheels = [f"{project}-{version}.0-cp3{minor}-cp3{minor}-manylinux_2_17_x86_64.whl" for minor in minors]
    return [*wheels, f"{project}-{version}.0.tar.gz"]


@cache
def _page(project: str) -> bytes:
    files = [
        {"filename": name, "url": f"/files/{name}", "hashes": {"sha256": digest(name)}, "size": 1000, "yanked": False}
        for version in range(VERSIONS)
        for name in filenames(project, version)
    ]
    table = {"meta": {"api-version": "1.1"}, "name": project, "files": files}
    return gzip.compress(json.dumps(table).encode(), 1)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        is_known = self.headers.get("If-None-Match") == _ETAG
        body = b"" if is_known else _page(self.path.strip("/").split("/")[-1])
        self.send_response(304 if is_known else 200)
        headers = {"Content-Type": _TYPE, "Content-Encoding": "gzip", "ETag": _ETAG, "Content-Length": str(len(body))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        print(server.server_port, flush=True)
        server.serve_forever()
