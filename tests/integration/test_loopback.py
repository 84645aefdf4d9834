"""The registry that an engine on this machine pulls one image from."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from builder.engine.docker import DockerEngine
from builder.errors import EngineError, RegistryError
from builder.layer.assemble import AssembledImage
from builder.oci.loopback import NAME, serve
from builder.oci.reference import Digest
from tests.assembled import assembled, plan, read
from tests.integration.conftest import docker
from tests.layers import chosen, digest, rendered

Answer = tuple[int, bytes, str]


@pytest.fixture
def image(tmp_path: Path) -> AssembledImage:
    """An assembled image."""
    return assembled(tmp_path)


@pytest.fixture
def host(image: AssembledImage) -> Iterator[str]:
    """The address of a registry with the image."""
    with serve(image) as reference:
        assert reference == f"{reference.partition('/')[0]}/{NAME}@{image.digest}"
        assert reference.startswith("127.0.0.1:")
        yield reference.partition("/")[0]


def ask(host: str, path: str, method: str = "GET") -> Answer:
    """Status, body and Docker-Content-Digest of an answer."""
    connection = http.client.HTTPConnection(host, timeout=10)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, answer.headers.get("Docker-Content-Digest", "")


def first_layer(image: AssembledImage) -> str:
    """The digest of the image's first layer."""
    return image.manifest.body.layers[0].digest


def test_image_is_there(image: AssembledImage, host: str) -> None:
    """Broken: an engine cannot pull the image, or gets other bytes."""
    assert ask(host, "/v2/")[0] == 200
    manifest = f"/v2/{NAME}/manifests/{image.digest}"
    assert ask(host, manifest) == (200, image.manifest.content, str(image.digest))
    assert image.manifest.body.config
    digests = [image.manifest.body.config.digest, *(layer.digest for layer in image.manifest.body.layers)]
    for each in digests:
        assert ask(host, f"/v2/{NAME}/blobs/{each}") == (200, read(image, each), each)


def test_client_that_tries_tls_first(host: str) -> None:
    """Broken: an engine's first attempt, which is TLS, hangs or is answered so that it does not try HTTP."""
    name, _, port = host.partition(":")
    with socket.create_connection((name, int(port)), timeout=10) as client:
        client.sendall(b"\x16\x03\x01\x00\x05hello")
        assert client.recv(5) == b"HTTP/"


def test_engine_pulls_what_it_lacks(image: AssembledImage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Broken: after each change the engine gets all of the image, in an archive."""
    asked: list[str] = []
    opened = AssembledImage.open_blob

    def noted(self: AssembledImage, of: Digest) -> IO[bytes]:
        asked.append(str(of))
        return opened(self, of)

    monkeypatch.setattr(AssembledImage, "open_blob", noted)
    changed = assembled(tmp_path, plan(rendered([chosen("small", "2.0"), chosen("large", size=9_000_000)])))
    engine, tags = DockerEngine(), []
    for each in (image, changed):
        asked.clear()
        tags.append(each.rendered.immutable_tag)
        engine.load(each, tags[-1], "linux/amd64")
    try:
        assert changed.manifest.body.config
        old = {layer.digest for layer in image.manifest.body.layers}
        new = {layer.digest for layer in changed.manifest.body.layers} - old
        assert set(asked) == new | {changed.manifest.body.config.digest}
    finally:
        for tag in tags:
            docker("image", "rm", "--force", str(tag))


def test_head_tells_the_size(image: AssembledImage, host: str) -> None:
    """Broken: an engine that asks for the size first gets a body, and loses track of the connection."""
    connection = http.client.HTTPConnection(host, timeout=10)
    for path in (f"manifests/{image.digest}", f"blobs/{first_layer(image)}"):
        connection.request("HEAD", f"/v2/{NAME}/{path}")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
        size = int(answer.headers["Content-Length"])
        connection.request("GET", f"/v2/{NAME}/{path}")  # on the same connection
        assert len(connection.getresponse().read()) == size
    connection.close()


def test_nothing_else_is_there(image: AssembledImage, host: str) -> None:
    """Broken: another user of this machine can read other layers of the store, or any file."""
    store = image.blobs.store
    store.write(b"another image's")
    other = digest(b"another image's")
    for path in (
        f"/v2/{NAME}/blobs/{other}",
        f"/v2/{NAME}/blobs/{image.digest}",
        f"/v2/{NAME}/manifests/{first_layer(image)}",
        f"/v2/{NAME}/manifests/latest",
        f"/v2/other/manifests/{image.digest}",
        f"/v2/{NAME}/blobs/sha256:../../../etc/passwd",
        f"/v2/{NAME}/blobs/../../../../etc/passwd",
        f"/v2/{NAME}/blobs/",
        f"/v2/{NAME}/tags/list",
        "/",
    ):
        status, body, _ = ask(host, path)
        assert status == 404, path
        assert b"another image's" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_written(image: AssembledImage, host: str, method: str) -> None:
    """Broken: another user of this machine can change the image on its way to the engine."""
    before = read(image, first_layer(image))
    assert ask(host, f"/v2/{NAME}/blobs/{first_layer(image)}", method)[0] in {404, 405, 501}
    assert read(image, first_layer(image)) == before


def test_blob_that_cannot_be_opened(image: AssembledImage) -> None:
    """Broken: an engine's vague error hides that a registry has lost a layer."""
    lost = first_layer(image)
    image.blobs.store.path(Digest.from_str(lost)).unlink()

    def pull() -> None:
        with serve(image) as reference:
            assert ask(reference.partition("/")[0], f"/v2/{NAME}/blobs/{lost}")[0] == 500
            raise EngineError("the pull failed")

    with pytest.raises(RegistryError, match=lost):
        pull()


def test_error_of_the_engine(image: AssembledImage) -> None:
    """Broken: an engine that fails for a reason of its own is not reported."""

    def pull() -> None:
        with serve(image):
            raise EngineError("no space left")

    with pytest.raises(EngineError, match="no space left"):
        pull()


def test_registry_ends_with_the_pull(image: AssembledImage) -> None:
    """Broken: the image stays readable for every user of this machine."""
    with serve(image) as reference:
        name, _, port = reference.partition("/")[0].partition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((name, int(port)), timeout=10)


def test_engine_that_hangs_up(image: AssembledImage, capfd: pytest.CaptureFixture[str]) -> None:
    """Broken: an engine that ends a download, as one that has the layer already does, gets a traceback printed."""
    large = image.manifest.body.layers[0].digest
    with serve(image) as reference:
        name, _, port = reference.partition("/")[0].partition(":")
        for _ in range(5):
            with socket.create_connection((name, int(port)), timeout=10) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # hang up without a word
                client.sendall(f"GET /v2/{NAME}/blobs/{large} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        time.sleep(0.5)
        assert ask(reference.partition("/")[0], "/v2/")[0] == 200
    assert capfd.readouterr() == ("", "")
