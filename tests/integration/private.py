"""A server as companies have them: packages and git repositories behind one password and a certificate of their own."""

from __future__ import annotations

import base64
import contextlib
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import trustme

from tests.integration.conftest import docker
from tests.integration.shelf import Shelf

NAME: Final = "company.example"  # of the server, where somebody says where that is


@dataclass(frozen=True, kw_only=True)
class PrivateServer:
    """A running server: `ca` is what signed its certificate; files below `/open` need no password.

    `logins` are those that it lets in, as in an Authorization header.
    """

    folder: Path
    url: str
    ca: bytes
    logins: set[str]
    refused: list[str]

    @property
    def shelf(self) -> Shelf:
        """Packages on this server."""
        (self.folder / "files").mkdir(exist_ok=True)
        return Shelf(folder=self.folder / "files", url=f"{self.url}/files")

    def admit(self, user: str, password: str) -> None:
        """Let a login in."""
        self.logins.add("Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())

    def repository(self, name: str) -> dict[str, Any]:
        """Make a git repository with a package that is built from it; return its table of a lock."""
        work = self.folder.parent / f"{name}-work"
        work.mkdir()
        packed = Shelf(folder=work, url="").sdist(name)["sdist"]["name"]
        subprocess.run(["tar", "--extract", "--strip-components=1", f"--file={packed}"], cwd=work, check=True)
        (work / packed).unlink()
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "init.defaultBranch=main"]
        for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "All"]):
            subprocess.run([*git, *words], cwd=work, check=True)
        bare = self.folder / "git" / f"{name}.git"
        subprocess.run([*git, "clone", "--quiet", "--bare", str(work), str(bare)], check=True)
        asked = subprocess.run([*git, "rev-parse", "HEAD"], cwd=work, capture_output=True, text=True, check=True)
        url = f"{self.url}/git/{name}.git"
        return {"name": name, "vcs": {"type": "git", "url": url, "commit-id": asked.stdout.strip()}}


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *arguments: Any, place: PrivateServer, **more: Any) -> None:
        self.place = place
        super().__init__(*arguments, directory=str(place.folder), **more)

    def do_GET(self) -> None:
        if not self.path.startswith("/open") and self.headers.get("Authorization", "") not in self.place.logins:
            self.place.refused.append(self.path)
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="private"')
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path.startswith("/git/"):
            self._run_git()
        else:
            super().do_GET()

    do_POST = do_GET  # noqa: N815 - http.server's name

    def _run_git(self) -> None:
        path, _, query = self.path.removeprefix("/git").partition("?")
        environment = {
            **os.environ, "GIT_PROJECT_ROOT": str(self.place.folder / "git"), "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": self.command, "REMOTE_USER": "somebody",
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }  # fmt: skip
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        self.send_response(int(headers.pop("Status", "200 OK").split()[0]))
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """Print nothing."""


@contextlib.contextmanager
def open_private_server(folder: Path) -> Iterator[PrivateServer]:
    """Serve a folder where the engine's builds can reach it."""
    address = docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")
    ca = trustme.CA(organization_name="Company")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(address, NAME).configure_cert(context)
    with ThreadingHTTPServer((address, 0), SimpleHTTPRequestHandler) as server:
        place = PrivateServer(
            folder=folder,
            url=f"https://{address}:{server.server_port}",
            ca=ca.cert_pem.bytes(),
            logins=set(),
            refused=[],
        )
        server.RequestHandlerClass = partial(_Handler, place=place)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield place
        finally:
            server.shutdown()
            thread.join()
