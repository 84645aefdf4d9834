"""An engine that answers anything: limits in bytes and in time, and one kind of error."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.engine import docker_client as engine_module
from builder.engine.docker import DockerEngine
from builder.errors import EngineError
from tests.integration.server import Answer, Request, serving

pytestmark = [
    pytest.mark.usefixtures("clean_environment"),
    # The SDK leaves a connection open whose answer it does not understand.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

JSON = {"Content-Type": "application/json"}
VERSION = Answer(body=b'{"ApiVersion": "1.45"}', headers=JSON)
IMAGE = "docker.io/library/x:1"


def _empty_tar() -> io.BytesIO:
    packed = io.BytesIO()
    tarfile.open(fileobj=packed, mode="w").close()
    packed.seek(0)
    return packed


def _volume(engine: DockerEngine) -> None:
    with engine.volume(IMAGE, "/builds", _empty_tar()):
        pass


def _run(engine: DockerEngine) -> None:
    engine.run(IMAGE, "true", volume="v", target="/builds", workdir="/", seconds=5)


REQUESTS: dict[str, Callable[[DockerEngine], object]] = {
    "attestations": lambda engine: engine.check_attestations(),
    "image": lambda engine: engine.find_image_id(IMAGE),
    "tag": lambda engine: engine.tag(IMAGE, "y:1"),
    "volume": _volume,
    "run": _run,
    "config": lambda engine: engine.find_image_config(IMAGE),
    "read": lambda engine: engine.read_file(IMAGE, "/x"),
    "save": lambda engine: engine.save(IMAGE, Path("/dev/null")),
}
BODIES = [b"", b"null", b"[]", b"1", b'"x"', b"{}", b"[null]", b"{", b"\xff", b"<html>", b"[" * 100_000]
BODIES += [b'{"Id": 1, "Name": 1, "StatusCode": "x"}', b'{"Id": null, "Name": [], "DriverStatus": 1}']


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], DockerEngine]]:
    """Make an engine that answers everything alike, but the question for its version."""
    current: list[Answer] = []

    def answer(request: Request) -> Answer:
        return VERSION if request.path == "/version" and "version" not in current[0].headers else current[0]

    with serving(answer, monkeypatch) as server:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://{server.host}")

        engines: list[DockerEngine] = []

        def start(each: Answer) -> DockerEngine:
            current[:] = [each]
            engines.append(DockerEngine())
            return engines[-1]

        yield start
        for engine in engines:
            if engine._connected:
                engine._connected.close()


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("status", [200, 201, 404, 500])
def test_odd_answers(answering: Callable[[Answer], DockerEngine], request_: str, status: int) -> None:
    """Broken: an odd answer of an engine ends builder with a traceback."""
    for body in BODIES:
        with contextlib.suppress(EngineError):
            REQUESTS[request_](answering(Answer(status=status, body=body, headers=JSON)))


@pytest.mark.parametrize("request_", REQUESTS)
def test_too_long(answering: Callable[[Answer], DockerEngine], monkeypatch: pytest.MonkeyPatch, request_: str) -> None:
    """Broken: an engine's answer fills the memory."""
    monkeypatch.setattr(engine_module, "_ANSWER_BYTES", 1000)
    body = json.dumps({"Id": "sha256:" + "0" * 64, "padding": "x" * 5000}).encode()
    if request_ in {"tag", "save"}:  # one asks for the status alone, the other writes to a file
        return
    with pytest.raises(EngineError, match="sent an answer of more than 1,000 bytes"):
        REQUESTS[request_](answering(Answer(body=body, headers=JSON)))


def test_too_long_at_first(answering: Callable[[Answer], DockerEngine], monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: the first answer of an engine, which tells its version, fills the memory."""
    monkeypatch.setattr(engine_module, "_ANSWER_BYTES", 1000)
    endless = Answer(body=b'{"ApiVersion": "1.45"}' + b" " * 5000, headers={**JSON, "version": "too"})
    with pytest.raises(EngineError):
        answering(endless).find_image_id(IMAGE)


def test_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: an engine that sends a byte every second keeps builder waiting without an end."""
    monkeypatch.setattr(engine_module, "_TIMEOUT", 1)

    def answer(request: Request) -> Answer:
        if request.path == "/version":
            return VERSION
        return Answer(body=b"{", headers={**JSON, "Content-Length": "60"})

    with serving(answer, monkeypatch) as server:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://{server.host}")
        begun, engine = time.monotonic(), DockerEngine()
        with pytest.raises(EngineError):
            engine.find_image_id(IMAGE)
        assert time.monotonic() - begun < 20
        engine._connected.close()
