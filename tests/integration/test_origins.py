"""Passwords and tokens reach the server that they are for, and no other, whatever a registry answers."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from builder.errors import RegistryError
from builder.oci.manifest import digest_of
from builder.oci.reference import ImageRef, Mirrors
from builder.oci.registry import Registries
from tests.integration import faults
from tests.integration.faults import FaultProxy, between
from tests.integration.registries import (  # noqa: F401 - some are fixtures
    Registry,
    Tokens,
    a_token_registry,
    an_open_registry,
)
from tests.integration.server import Answer, Request, Server, serving
from tests.integration.test_registry_writes import OCI_MANIFEST, put

USER, PASSWORD = "jane", "hunter2"
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
MANIFEST = json.dumps(
    {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": {"digest": "sha256:" + "0" * 64, "size": 2}}
)

pytestmark = pytest.mark.usefixtures("clean_environment")


def log_in(
    host: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *, user: str = USER, password: str = PASSWORD
) -> None:
    """Do what `docker login` does."""
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}), encoding="utf-8")
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))


@pytest.fixture(params=["Basic realm='x'", 'Bearer realm="http://{host}/token",service="x"'], ids=["basic", "bearer"])
def elsewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of somebody else, which demands a password, in either form."""

    def answer(asked: Request) -> Answer:
        challenge = request.param.format(host=asked.headers["host"])
        return Answer(status=401, headers={"WWW-Authenticate": challenge})

    with serving(answer, monkeypatch) as server:
        yield server


@pytest.fixture
def door(token_registry: Tokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy, for faults, in front of a registry that requires tokens; with a login."""
    with between(token_registry.proxy.host) as proxy:
        known = token_registry.registry
        log_in(proxy.host, tmp_path, monkeypatch, user=known.user, password=known.password)
        yield proxy


def _manifest(asked: Registries, ref: ImageRef) -> None:
    asked.fetch_manifest(ref)


def _digest(asked: Registries, ref: ImageRef) -> None:
    asked.fetch_digest(ref)


def _blob(asked: Registries, ref: ImageRef) -> None:
    asked.fetch_blob(ref, digest_of(b"x"))


def _upload(asked: Registries, ref: ImageRef) -> None:
    put(asked, ref, b"x")


def _tags(asked: Registries, ref: ImageRef) -> None:
    asked.fetch_tags(ref)


def _redirect(there: str) -> faults.Answer:
    return faults.Answer(status=307, headers={"Location": there})


def _location(there: str) -> faults.Answer:
    return faults.Answer(status=202, headers={"Location": there})


def _next_page(there: str) -> faults.Answer:
    return faults.Answer(status=200, headers={"Link": f'<{there}>; rel="next"'}, body=b'{"tags": ["a"]}')


WAYS: dict[str, tuple[str, Callable[[str], faults.Answer], Callable[[Registries, ImageRef], None]]] = {
    "manifest": ("/manifests/", _redirect, _manifest),
    "digest": ("/manifests/", _redirect, _digest),
    "blob": ("/blobs/sha256", _redirect, _blob),
    "upload": ("/blobs/uploads/", _location, _upload),
    "redirected upload": ("/blobs/uploads/", _redirect, _upload),
    "tags": ("/tags/", _next_page, _tags),
}


@pytest.mark.parametrize("way", WAYS)
def test_challenge_from_elsewhere(door: FaultProxy, elsewhere: Server, way: str) -> None:
    """Broken: a host that a registry redirects to gets the registry's password by answering 401."""
    path, answer, attempt = WAYS[way]
    asked, ref = Registries(Mirrors()), ImageRef.from_str(f"{door.host}/acme/{secrets.token_hex(6)}:3.12")
    put(asked, ref, b"so that there are tokens for both kinds of access")
    door.on(".*", path, answer(f"http://{elsewhere.host}/v2/acme/ci/manifests/x"), times=None)
    with pytest.raises(RegistryError, match=f"http://{elsewhere.host} demands a password") as raised:
        attempt(asked, ref)
    assert raised.value.hint
    assert elsewhere.requests
    assert not [each.path for each in elsewhere.requests if "authorization" in each.headers]


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """What a server needs for TLS; its CA is trusted."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.2").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return context


@pytest.mark.parametrize("way", ["realm", *WAYS])
def test_never_below_https(tls: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Broken: a registry behind https can have its password, or content, sent in clear."""

    def in_clear(asked: Request) -> Answer:
        return Answer(body=json.dumps({"token": "t0ken"}).encode(), headers={"Content-Type": OCI_MANIFEST})

    with serving(in_clear, monkeypatch) as plain:

        def answer(asked: Request) -> Answer:
            if way == "realm":
                challenge = f'Bearer realm="http://{plain.host}/token",service="x"'
                return Answer(status=401, headers={"WWW-Authenticate": challenge})
            path, made, _ = WAYS[way]
            if path not in asked.path:
                return Answer(status=404)
            found = made(f"http://{plain.host}/v2/x")
            return Answer(status=found.status, headers=found.headers, body=found.body)

        with serving(answer, monkeypatch, tls=tls) as registry:
            log_in(registry.host, tmp_path, monkeypatch)
            attempt = _manifest if way == "realm" else WAYS[way][2]
            with pytest.raises(
                RegistryError, match=f"in clear, to http://{plain.host}|from https to http://{plain.host}"
            ):
                attempt(Registries(Mirrors()), ImageRef.from_str(f"{registry.host}/acme/ci:3.12"))
    assert plain.requests == []


def test_token_server_on_another_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a registry in clear can have its password sent in clear to any host."""

    def answer(asked: Request) -> Answer:
        challenge = 'Bearer realm="http://registry.invalid/token",service="x"'
        return Answer(status=401, headers={"WWW-Authenticate": challenge})

    with serving(answer, monkeypatch) as registry:
        log_in(registry.host, tmp_path, monkeypatch)
        with pytest.raises(RegistryError, match=r"in clear, to http://registry\.invalid"):
            Registries(Mirrors()).fetch_digest(ImageRef.from_str(f"{registry.host}/acme/ci:3.12"))


@pytest.mark.parametrize("form", ["http://{other}\\@{host}/", "http://{host}@{other}/", "http://{other}\t@{host}/"])
def test_disputed_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """Broken: an address that parsers of URLs read in two ways brings a token to another host."""
    with serving(lambda _: Answer(status=201), monkeypatch) as other:

        def answer(asked: Request) -> Answer:
            if asked.headers.get("authorization") != BASIC:
                return Answer(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
            if asked.method == "HEAD":
                return Answer(status=404)
            where = form.format(host=asked.headers["host"], other=other.host)
            return Answer(status=202, headers={"Location": f"{where}v2/upload"})

        with serving(answer, monkeypatch) as registry:
            log_in(registry.host, tmp_path, monkeypatch)
            ref = ImageRef.from_str(f"{registry.host}/acme/ci:3.12")
            with contextlib.suppress(RegistryError):
                put(Registries(Mirrors()), ref, b"x")
    assert not [each for each in other.requests if "authorization" in each.headers]


def test_redirected_token_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a token server that redirects gets its query twice, or its redirect gets the password."""
    with serving(lambda _: Answer(body=b'{"token": "t0ken"}'), monkeypatch) as other:

        def answer(asked: Request) -> Answer:
            if asked.path.startswith("/token"):
                return Answer(status=307, headers={"Location": f"http://{other.host}/other"})
            if asked.headers.get("authorization") == "Bearer t0ken":
                return Answer(status=404)
            challenge = f'Bearer realm="http://{asked.headers["host"]}/token",service="x"'
            return Answer(status=401, headers={"WWW-Authenticate": challenge})

        with serving(answer, monkeypatch) as registry:
            log_in(registry.host, tmp_path, monkeypatch)
            assert Registries(Mirrors()).fetch_digest(ImageRef.from_str(f"{registry.host}/acme/ci:3.12")) is None
    assert [each.path for each in other.requests] == ["/other"]
    assert "authorization" not in other.requests[0].headers
    asked = [each for each in registry.requests if each.path.startswith("/token?")]
    assert [each.headers.get("authorization") for each in asked] == [BASIC]


def test_redirected_reading(door: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a registry that keeps its blobs with somebody else, as most large ones do, cannot be read."""
    with serving(lambda _: Answer(body=b"content"), monkeypatch) as storage:
        door.on("GET", "/blobs/sha256", _redirect(f"http://{storage.host}/stored"))
        ref = ImageRef.from_str(f"{door.host}/acme/ci:3.12")
        asked = Registries(Mirrors())
        asked.fetch_digest(ref)
        assert asked.fetch_blob(ref, digest_of(b"content")) == b"content"
    assert "authorization" in door.seen("GET", "/blobs/sha256")[-1].headers
    assert "authorization" not in storage.requests[0].headers
