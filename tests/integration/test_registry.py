"""Digests of tags in every kind of registry: open, with tokens, with a password, with minimal answers."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.errors import RegistryError
from builder.oci.manifest import Manifest, digest_of
from builder.oci.reference import ImageRef, Mirrors
from builder.oci.registry import Registries
from tests.integration.server import Answer, Request, Server, serving

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST = b'{"schemaVersion": 2, "manifests": []}'
DIGEST = "sha256:" + hashlib.sha256(MANIFEST).hexdigest()
BASIC = "Basic " + base64.b64encode(b"jane:hunter2").decode()
PYTHON = ImageRef.from_str("docker.io/library/python:3.12")

pytestmark = pytest.mark.usefixtures("clean_environment")
# Answers with the status 200 that are no manifests: media type, body, stated digest.
NO_MANIFESTS = {
    "portal": ("text/html; charset=utf-8", b"<html>please log in</html>", ""),
    "portal-with-digest": ("text/html", b"<html>please log in</html>", DIGEST),
    "portal-without-type": ("", b"<html>please log in</html>", ""),
    "json": ("application/json", b'{"please": "log in"}', DIGEST),
    "empty": ("", b"", DIGEST),
    "no-fields": (INDEX_TYPE, b'{"schemaVersion": 2}', ""),
    "other-type": (INDEX_TYPE, b'{"mediaType": "application/vnd.oci.image.manifest.v1+json", "manifests": []}', ""),
}


def answer(request: Request) -> Answer:
    """Serve several registries; the first part of the repository selects one."""
    host = request.headers["host"]
    if request.path.startswith("/token"):
        known = request.headers.get("authorization") == BASIC
        name = "access_token" if "scope=repository%3Atoken%2Flibrary%2Fpython%3Apull" in request.path else "wrong"
        return Answer(body=json.dumps({name: f"t0ken-of-{'jane' if known else 'nobody'}"}).encode())
    kind = request.path.split("/")[2]
    headers = {"Docker-Content-Digest": DIGEST, "Content-Type": f"{INDEX_TYPE}; charset=utf-8"}
    said = request.headers.get("authorization", "")
    if kind == "token" and said != "Bearer t0ken-of-jane":
        challenge = f'Bearer realm="http://{host}/token",service="{host}"'
        return Answer(status=401, headers={"WWW-Authenticate": challenge})
    if kind == "basic" and said != BASIC:
        return Answer(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
    if kind == "sparse":
        return Answer(body=MANIFEST, headers={"Content-Type": INDEX_TYPE})
    if kind in NO_MANIFESTS:
        media_type, body, stated = NO_MANIFESTS[kind]
        return Answer(
            body=body, headers={"Content-Type": media_type, **({"Docker-Content-Digest": stated} if stated else {})}
        )
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


@pytest.mark.parametrize("kind", NO_MANIFESTS)
def test_success_that_is_no_manifest(registry: Server, kind: str) -> None:
    """Broken: a portal that answers 200 to everything counts as an image that is up to date."""
    with pytest.raises(RegistryError, match=r"a web page|is not a manifest") as raised:
        resolved(registry, kind)
    assert registry.host in raised.value.what
    with pytest.raises(RegistryError, match=r"a web page|is not a manifest"):
        Registries(Mirrors()).fetch_digest(ImageRef.from_str(f"{registry.host}/{kind}/ci:3.12"))


def test_portal_in_front_of_an_upload(registry: Server) -> None:
    """Broken: a portal that answers 200 to everything counts as a registry that stored a blob or a manifest."""
    ref, asked = ImageRef.from_str(f"{registry.host}/portal/ci:3.12"), Registries(Mirrors())
    digest, manifest = digest_of(b"x"), Manifest(content=MANIFEST, media_type=INDEX_TYPE)
    attempts: tuple[Callable[[], object], ...] = (
        lambda: asked.has_blob(ref, digest),
        lambda: asked.put_manifest(ref, manifest),
        lambda: asked.delete(ref.with_digest(digest)),
        lambda: asked.fetch_tags(ref),
    )
    for attempt in attempts:
        with pytest.raises(RegistryError, match="a web page"):
            attempt()


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
