"""Digests of tags in every kind of registry: open, with tokens, with a password, with minimal answers."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.errors import RegistryError
from builder.oci.reference import ImageRef, Mirrors
from builder.oci.registry import Registries
from tests.integration.server import Answer, Request, Server, serving

MANIFEST = b'{"schemaVersion": 2}'
DIGEST = "sha256:" + hashlib.sha256(MANIFEST).hexdigest()
BASIC = "Basic " + base64.b64encode(b"jane:hunter2").decode()
PYTHON = ImageRef.from_str("docker.io/library/python:3.12")

pytestmark = pytest.mark.usefixtures("clean_environment")


def answer(request: Request) -> Answer:
    """Serve several registries; the first part of the repository selects one."""
    host = request.headers["host"]
    if request.path.startswith("/token"):
        known = request.headers.get("authorization") == BASIC
        name = "access_token" if "scope=repository%3Atoken%2Flibrary%2Fpython%3Apull" in request.path else "wrong"
        return Answer(body=json.dumps({name: f"t0ken-of-{'jane' if known else 'nobody'}"}).encode())
    kind = request.path.split("/")[2]
    headers = {"Docker-Content-Digest": DIGEST}
    said = request.headers.get("authorization", "")
    if kind == "token" and said != "Bearer t0ken-of-jane":
        challenge = f'Bearer realm="http://{host}/token",service="{host}"'
        return Answer(status=401, headers={"WWW-Authenticate": challenge})
    if kind == "basic" and said != BASIC:
        return Answer(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
    if kind == "sparse":
        return Answer(body=MANIFEST)
    statuses = {"missing": 404, "forbidden": 403, "broken": 400}
    return Answer(status=statuses.get(kind, 200), body=MANIFEST, headers=headers)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The running registries."""
    with serving(answer, monkeypatch) as server:
        yield server


@pytest.fixture
def log_in(registry: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Do what `docker login` does; before that there is no login."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))

    def write() -> None:
        auths = {registry.host: {"auth": base64.b64encode(b"jane:hunter2").decode()}}
        (tmp_path / "config.json").write_text(json.dumps({"auths": auths}), encoding="utf-8")

    return write


def resolved(registry: Server, kind: str) -> str:
    """The digest of a tag in a registry of this kind, which is a mirror of Docker Hub."""
    return str(Registries(Mirrors.from_strs([f"docker.io={registry.host}/{kind}"])).resolve(PYTHON))


@pytest.mark.parametrize("kind", ["open", "token", "basic", "sparse"])
def test_digest(registry: Server, log_in: Callable[[], None], kind: str) -> None:
    """Broken: builder cannot read a digest from some kind of registry."""
    log_in()
    assert resolved(registry, kind) == DIGEST
    asked = [request for request in registry.requests if request.path.startswith("/v2/")]
    assert {request.path for request in asked} == {f"/v2/{kind}/library/python/manifests/3.12"}
    assert all("application/vnd.oci.image.index.v1+json" in request.headers["accept"] for request in asked)


def test_one_token_for_each_repository(registry: Server, log_in: Callable[[], None]) -> None:
    """Broken: builder requests a token for each image, which registries limit."""
    log_in()
    registries = Registries(Mirrors.from_strs([f"docker.io={registry.host}/token"]))
    for tag in ("3.12", "3.13", "3.14"):
        registries.resolve(PYTHON.with_tag(tag))
    assert len([request for request in registry.requests if request.path.startswith("/token")]) == 1


def test_pinned_reference_is_not_asked_for(registry: Server) -> None:
    """Broken: builder sends a request for a digest that it knows."""
    pinned = ImageRef.from_str(f"{registry.host}/open/python@{DIGEST}")
    assert str(Registries(Mirrors()).resolve(pinned)) == DIGEST
    assert registry.requests == []


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "no such image: docker.io/library/python:3.12 (mirror: {host}/missing/library/python:3.12)"),
        ("forbidden", "does not allow this user to read docker.io/library/python:3.12 (mirror: {host}/"),
        ("token", "does not allow this user to read docker.io/library/python:3.12 (mirror: {host}/"),
        ("basic", "{host} requires a password"),
        ("broken", "{host} answered 400"),
    ],
)
def test_refusal_names_reference_and_mirror(
    registry: Server, log_in: Callable[[], None], kind: str, words: str
) -> None:
    """Broken: the error does not name the image and the mirror, or what to do."""
    with pytest.raises(RegistryError) as raised:
        resolved(registry, kind)
    assert words.format(host=registry.host) in raised.value.what
    assert raised.value.hint
    assert raised.value.exit_code == 3


@pytest.mark.parametrize(
    "config",
    ["{", "[]", '{"auths": []}', '{"auths": {"HOST": {"auth": "%%%"}}}', '{"auths": {"HOST": {"auth": "eA=="}}}'],
)
def test_broken_docker_config(registry: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str) -> None:
    """Broken: a damaged Docker config file causes a traceback."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text(config.replace("HOST", registry.host), encoding="utf-8")
    with pytest.raises(RegistryError) as raised:
        resolved(registry, "basic")
    assert "docker login" in str(raised.value)
