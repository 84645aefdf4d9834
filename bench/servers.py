"""Temporary servers: a registry that counts requests and uploads, and an empty engine."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import requests

from builder.errors import BuilderError
from builder.process import run

_START: Final = 60.0  # seconds
_STOP: Final = 60.0
_UPLOADED: Final = re.compile(
    r'"PUT /v2/\S+/blobs/uploads/\S*digest=sha256(?:%3A|:)(?P<hex>[0-9a-f]{64})\S* HTTP/1.1" 201 '
)
_SYSTEM: Final = "/usr/sbin:/sbin"  # where Debian has dockerd and ip, which are not in every PATH


@dataclass(frozen=True, kw_only=True)
class Registry:
    """An open registry on this machine; `host` is `name:port`."""

    host: str
    log: Path
    data: Path

    def requests(self) -> int:
        """The number of requests that it has answered."""
        return self._log().count(' HTTP/1.1" ')

    def uploads(self) -> list[str]:
        """The digests of the blobs that it was sent, in the order of its log; those that it mounted are not there."""
        return [f"sha256:{match['hex']}" for match in _UPLOADED.finditer(self._log())]

    def size(self, digest: str) -> int:
        """The bytes of a blob that it has."""
        hexadecimal = digest.removeprefix("sha256:")
        blob = self.data / "docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal / "data"
        return blob.stat().st_size

    def _log(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def registry(folder: Path) -> Iterator[Registry]:
    """Run Debian's docker-registry with its data in the folder."""
    program = shutil.which("docker-registry")
    if not program:
        raise BuilderError("docker-registry is not installed", hint="install the package docker-registry")
    folder.mkdir()
    port = _free_port()
    served = Registry(host=f"localhost:{port}", log=folder / "log", data=folder / "data")
    config = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(served.data)}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": secrets.token_hex()},
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    with _served([program, "serve", str(folder / "config.json")], served.log, lambda: _answers(served.host)):
        yield served


@contextlib.contextmanager
def empty_engine(folder: Path, *, in_memory: bool) -> Iterator[str]:
    """Run a second Docker engine with its own store and bridge; yield its address. Requires root."""
    missing = [name for name in ("dockerd", "ip", "mount") if not _found(name)]
    if os.geteuid() or missing:
        reason = f"{missing[0]} is not installed" if missing else "this user is not root"
        raise BuilderError(f"cannot start a second engine: {reason}")
    with contextlib.ExitStack() as stack:
        folder.mkdir()
        if in_memory:
            run(["mount", "-t", "tmpfs", "tmpfs", str(folder)]).check("mount")
        for mounted in (folder, folder / "data"):  # the engine may leave its own mount on the first
            stack.callback(run, ["umount", "--recursive", str(mounted)])
        bridge = f"bench-{secrets.token_hex(3)}"
        run([_found("ip"), "link", "add", bridge, "type", "bridge"]).check("ip link")
        stack.callback(run, [_found("ip"), "link", "delete", bridge])
        run([_found("ip"), "address", "add", "172.31.251.1/24", "dev", bridge]).check("ip address")
        address = f"unix://{folder}/docker.sock"
        argv = [_found("dockerd"), "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"]
        argv += ["--pidfile", f"{folder}/pid", "--host", address, "--bridge", bridge, "--iptables=false"]
        log = folder.with_suffix(".log")
        stack.enter_context(_served(argv, log, lambda: not run(["docker", "--host", address, "version"]).returncode))
        yield address


@contextlib.contextmanager
def _served(argv: Sequence[str], log: Path, ready: Callable[[], bool]) -> Iterator[None]:
    """Run a server from when it is ready until the block ends; raise BuilderError if it does not start."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
            env={**os.environ, "PATH": f"{os.environ['PATH']}:{_SYSTEM}"},
        )  # fmt: skip
    try:
        end = time.monotonic() + _START
        while not ready():
            if process.poll() is not None or time.monotonic() > end:
                said = log.read_text(encoding="utf-8", errors="replace")[-1000:]
                raise BuilderError(f"{Path(argv[0]).name} did not start: {said}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _found(name: str) -> str:
    return shutil.which(name, path=f"{os.environ['PATH']}:{_SYSTEM}") or ""


def _answers(host: str) -> bool:
    with contextlib.suppress(requests.RequestException):
        return requests.get(f"http://{host}/v2/", timeout=5).ok
    return False


def _free_port() -> int:
    """An unused port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
