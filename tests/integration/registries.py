"""Real registries on this machine: open, with password and TLS, without deletion, and with short-lived tokens.

Each is a context manager; the fixtures below keep one of each up for the whole session.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import certifi
import pytest
import trustme

from builder.oci.reference import ImageRef
from tests.integration.faults import Answer, Exchange, FaultProxy, between
from tests.shared import Shared

USER: Final = "jane"
PASSWORD: Final = "open sesame"
# bcrypt, of PASSWORD: the only kind that the registry reads, and the standard library does not write it.
_HTPASSWD: Final = f"{USER}:$2y$04$dGVzdHNvZmJ1aWxkZXIuLuwqTb.aTKTxVoZd15KPfx641hxf2Er/u\n"
_PLAIN_HOST: Final = "localhost"
_TLS_HOST: Final = "127.0.0.2"  # this machine too, and a name that builder does not ask in the clear
_START: Final = 30.0  # seconds


@dataclass(frozen=True, kw_only=True)
class Registry:
    """A running registry: `host` is `name:port`, `ca` the certificate that signed its own, if it has one."""

    host: str
    ca: Path | None = None
    user: str = ""
    password: str = ""
    data: Path | None = None
    log: Path | None = None

    def ref(self, name: str) -> ImageRef:
        """The reference `acme/ci:tag` at this registry."""
        return ImageRef.from_str(f"{self.host}/{name}")

    def docker_config(self, folder: Path, *, password: str | None = None) -> Path:
        """Write what `docker login` would write to the folder, for DOCKER_CONFIG; with the given password, if any."""
        folder.mkdir(parents=True, exist_ok=True)
        login = f"{self.user}:{self.password if password is None else password}"
        auths = {self.host: {"auth": base64.b64encode(login.encode()).decode()}} if self.user else {}
        (folder / "config.json").write_text(json.dumps({"auths": auths}), encoding="utf-8")
        return folder

    def environment(self, folder: Path, *, password: str | None = None) -> dict[str, str]:
        """Variables that give builder and docker the login and the CA of this registry."""
        variables = dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1,127.0.0.2")
        variables["DOCKER_CONFIG"] = str(self.docker_config(folder, password=password))
        if self.ca:
            others = Path(os.environ.get("SSL_CERT_FILE") or certifi.where())
            bundle = folder / "ca.pem"
            bundle.write_bytes(others.read_bytes() + b"\n" + self.ca.read_bytes())
            variables["SSL_CERT_FILE"] = str(bundle)
        return variables


@contextlib.contextmanager
def running(folder: Path, *, deletion: bool = True, guarded: bool = False) -> Iterator[Registry]:
    """Debian's docker-registry with its data in the folder; `guarded` means with password and TLS."""
    process, registry = _start(folder, deletion=deletion, guarded=guarded)
    try:
        yield registry
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _start(folder: Path, *, deletion: bool, guarded: bool) -> tuple[subprocess.Popen[bytes], Registry]:
    program = shutil.which("docker-registry")
    if not program:
        pytest.skip("there is no docker-registry; `make test` installs it")
    name = _TLS_HOST if guarded else _PLAIN_HOST
    host = f"{name}:{_free_port(name)}"
    ca = folder / "ca.pem" if guarded else None
    if ca:
        _write_secrets(folder, ca)
    config = folder / "config.json"
    config.write_text(json.dumps(_config(folder, host, deletion=deletion, guarded=guarded), indent=2), encoding="utf-8")
    registry = Registry(
        host=host, ca=ca, user=USER if guarded else "", password=PASSWORD if guarded else "",
        data=folder / "data", log=folder / "log",
    )  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "serve", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={"PATH": os.environ["PATH"]}, start_new_session=True,
        )  # fmt: skip
    try:
        _wait(process, registry)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process, registry


def _config(folder: Path, host: str, *, deletion: bool, guarded: bool) -> dict[str, object]:
    """The registry's configuration; JSON is YAML."""
    name, _, port = host.rpartition(":")
    address = f"{'127.0.0.1' if name == _PLAIN_HOST else name}:{port}"
    served: dict[str, object] = {"addr": address, "secret": "of the tests"}
    if guarded:
        served["tls"] = {"certificate": str(folder / "server.pem"), "key": str(folder / "server.key")}
    config: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(folder / "data")},
            "delete": {"enabled": deletion},
            "cache": {"blobdescriptor": "inmemory"},
        },
        "http": served,
    }
    if guarded:
        config["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
    return config


def _write_secrets(folder: Path, ca: Path) -> None:
    (folder / "htpasswd").write_text(_HTPASSWD, encoding="utf-8")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(ca))
    certificate = authority.issue_cert(_TLS_HOST)
    certificate.private_key_pem.write_to_path(str(folder / "server.key"))
    for index, each in enumerate(certificate.cert_chain_pems):
        each.write_to_path(str(folder / "server.pem"), append=index > 0)


def _free_port(name: str) -> int:
    """An unused port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1" if name == _PLAIN_HOST else name, 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(process: subprocess.Popen[bytes], registry: Registry) -> None:
    """Return when /v2/ answers; raise with the log if the registry ends, or takes too long."""
    end = time.monotonic() + _START
    while process.poll() is None and time.monotonic() < end:
        connection = (
            http.client.HTTPSConnection(
                registry.host, context=ssl.create_default_context(cafile=registry.ca), timeout=5
            )
            if registry.ca
            else http.client.HTTPConnection(registry.host, timeout=5)
        )
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", "/v2/")
            connection.getresponse().read()
            return
        time.sleep(0.02)
    said = registry.log.read_text(encoding="utf-8") if registry.log else ""
    raise RuntimeError(f"docker-registry did not start\n{said}")


@dataclass(kw_only=True)
class Tokens:
    """A registry that requires tokens, and issues them for user and password.

    A token is good for `lifetime` requests (None: for ever). With `refuses_push` writing is forbidden to everybody.
    """

    registry: Registry
    proxy: FaultProxy
    lifetime: int | None = None
    refuses_push: bool = False
    issued: list[tuple[str, ...]] = field(default_factory=list)  # the scopes of each token, in order
    _left: dict[str, int | None] = field(default_factory=dict)
    _scopes: dict[str, tuple[str, ...]] = field(default_factory=dict)


def _gate(tokens: Tokens, exchange: Exchange) -> Answer | None:
    """The answer of the token server, or of the registry's token check; None lets the request through."""
    asked = urlsplit(exchange.path)
    if asked.path == "/token":
        return _issue(tokens, exchange, tuple(parse_qs(asked.query).get("scope", [])))
    write = exchange.method not in {"GET", "HEAD"}
    action = {"GET": "pull", "HEAD": "pull", "DELETE": "delete"}.get(exchange.method, "push")
    found = asked.path.removeprefix("/v2/")
    for separator in ("/manifests/", "/blobs/", "/tags/"):
        found = found.partition(separator)[0]
    token = exchange.headers.get("authorization", "").removeprefix("Bearer ")
    granted = [scope.rpartition(":") for scope in tokens._scopes.get(token, ())]
    fits = not found or any(name == f"repository:{found}" and action in able.split(",") for name, _, able in granted)
    left = tokens._left.get(token, 0)
    if not fits or left == 0:
        return _challenge(exchange, found, action, error="invalid_token" if fits else "insufficient_scope")
    if write and tokens.refuses_push:
        return _refusal(403, "DENIED", "requested access to the resource is denied")
    tokens._left[token] = None if left is None else left - 1
    return None


def _issue(tokens: Tokens, exchange: Exchange, scopes: tuple[str, ...]) -> Answer:
    if exchange.method != "GET":
        return _refusal(405, "UNSUPPORTED", "ask with GET")
    login = base64.b64encode(f"{tokens.registry.user}:{tokens.registry.password}".encode()).decode()
    if exchange.headers.get("authorization") != f"Basic {login}":
        return _refusal(401, "UNAUTHORIZED", "wrong user name or password")
    token = secrets.token_hex(16)
    tokens._left[token] = tokens.lifetime
    tokens._scopes[token] = scopes
    tokens.issued.append(scopes)
    return Answer(status=200, headers={"Content-Type": "application/json"}, body=json.dumps({"token": token}).encode())


def _challenge(exchange: Exchange, repository: str, action: str, *, error: str) -> Answer:
    host = exchange.headers["host"]
    wanted = f'Bearer realm="http://{host}/token",service="{host}"'
    if repository:
        wanted += f',scope="repository:{repository}:{"pull" if action == "pull" else f"pull,{action}"}",error="{error}"'
    refusal = _refusal(401, "UNAUTHORIZED", "authentication required")
    return Answer(status=401, headers={**refusal.headers, "WWW-Authenticate": wanted}, body=refusal.body)


def _refusal(status: int, code: str, message: str) -> Answer:
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Answer(status=status, headers={"Content-Type": "application/json"}, body=body)


@contextlib.contextmanager
def asking_for_tokens(behind: Registry, *, lifetime: int | None = None) -> Iterator[Tokens]:
    """A proxy that requires tokens, in front of an open registry."""
    made: list[Tokens] = []
    with between(behind.host, gate=lambda exchange: _gate(made[0], exchange)) as proxy:
        registry = Registry(host=proxy.host, user=USER, password=PASSWORD, data=behind.data, log=behind.log)
        made.append(Tokens(registry=registry, proxy=proxy, lifetime=lifetime))
        yield made[0]


_STARTED: Final[list[subprocess.Popen[bytes]]] = []  # kept: they go on after the worker that started them


@pytest.fixture(scope="session", name="open_registry")
def an_open_registry(shared: Shared) -> Registry:
    """A registry without access control, the same for all workers."""

    def start(folder: Path) -> str:
        process, registry = _start(folder, deletion=True, guarded=False)
        _STARTED.append(process)
        shared.at_the_end("kill", str(process.pid))
        return registry.host

    return Registry(host=shared.once("open-registry", start))


@pytest.fixture(scope="session", name="guarded_registry")
def a_guarded_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with a password and a private certificate."""
    with running(tmp_path_factory.mktemp("guarded-registry"), guarded=True) as registry:
        yield registry


@pytest.fixture(scope="session", name="keeping_registry")
def a_keeping_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry without deletion."""
    with running(tmp_path_factory.mktemp("keeping-registry"), deletion=False) as registry:
        yield registry


@pytest.fixture(name="token_registry")
def a_token_registry(open_registry: Registry) -> Iterator[Tokens]:
    """A registry that requires tokens, for one test."""
    with asking_for_tokens(open_registry) as tokens:
        yield tokens


@pytest.fixture(name="faulty")
def a_faulty_registry(open_registry: Registry) -> Iterator[FaultProxy]:
    """A fault proxy in front of the open registry, for one test."""
    with between(open_registry.host) as proxy:
        yield proxy
