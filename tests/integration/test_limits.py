"""No answer and no helper takes more memory or time than what it is for needs."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import secrets
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.errors import BuilderError, CommandError, LockError, RegistryError
from builder.lock.read import read_lock
from builder.matrix.schema import Install
from builder.oci import credentials, registry, transport
from builder.oci.manifest import digest_of
from builder.oci.reference import ImageRef, Mirrors
from builder.oci.registry import Registries
from builder.process import run
from tests.integration.faults import Answer, Call, Exchange, FaultProxy, Slow
from tests.integration.registries import a_faulty_registry, an_open_registry
from tests.integration.test_registry_writes import OCI_MANIFEST, content, image, put

__all__ = ["a_faulty_registry", "an_open_registry"]

MEBIBYTE = 1 << 20
MANIFEST = {"Content-Type": OCI_MANIFEST}

pytestmark = pytest.mark.usefixtures("clean_environment", "bounded")


@pytest.fixture
def bounded() -> Iterator[None]:
    """Fail a test that takes more than 100 MB of memory, or more than twenty seconds."""
    begun = time.monotonic()
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * MEBIBYTE
    assert time.monotonic() - begun < 20


@pytest.fixture
def ci(faulty: FaultProxy) -> ImageRef:
    """A tag in a repository for this test, behind the fault proxy."""
    return ImageRef.from_str(f"{faulty.host}/acme/{secrets.token_hex(6)}:3.12")


def bomb() -> bytes:
    """A gigabyte of spaces, compressed to a megabyte."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as file:
        for _ in range(1024):
            file.write(b" " * MEBIBYTE)
    return packed.getvalue()


READS: dict[str, Callable[[ImageRef], object]] = {
    "digest": lambda ref: Registries(Mirrors()).fetch_digest(ref),
    "manifest": lambda ref: Registries(Mirrors()).fetch_manifest(ref),
    "blob": lambda ref: Registries(Mirrors()).fetch_blob(ref, digest_of(b"x")),
    "tags": lambda ref: Registries(Mirrors()).fetch_tags(ref),
    "error": lambda ref: put(Registries(Mirrors()), ref, b"x"),
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("kind", ["bomb", "large", "redirect"])
def test_large_answer(faulty: FaultProxy, ci: ImageRef, read: str, kind: str) -> None:
    """Broken: a registry that sends a gigabyte for a manifest takes that much memory."""
    answers = {
        "bomb": Answer(status=200, body=_BOMB, headers={**MANIFEST, "Content-Encoding": "gzip"}),
        "large": Answer(status=200, body=b" " * 6 * MEBIBYTE, headers=MANIFEST),
        "redirect": Answer(
            status=307, body=_BOMB, headers={"Location": f"http://{faulty.host}/", "Content-Encoding": "gzip"}
        ),
    }
    faulty.on("HEAD", "/blobs/", Answer(status=404), times=None)
    faulty.on("HEAD", "/manifests/", Answer(status=200), times=None)
    faulty.on(".*", "", answers[kind], times=None)
    with pytest.raises(RegistryError, match="an answer of more than 4,194,304 bytes") as raised:
        READS[read](ci)
    assert ci.registry in raised.value.what
    assert len(faulty.seen("GET|POST")) == 1


_BOMB = bomb()


def test_large_layer(faulty: FaultProxy, ci: ImageRef) -> None:
    """Broken: a blob may have more bytes than its manifest says."""
    asked = Registries(Mirrors())
    blob, digest = content(6 * MEBIBYTE)
    put(asked, ci, blob)
    assert asked.fetch_blob(ci, digest, size=len(blob)) == blob
    with pytest.raises(RegistryError, match="more than"):
        asked.fetch_blob(ci, digest, size=len(blob) - 1)


def test_slow_answer(faulty: FaultProxy, ci: ImageRef, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a registry that sends a byte now and then makes a run wait for ever."""
    asked = Registries(Mirrors())
    asked.put_manifest(ci, image(asked, ci))
    monkeypatch.setattr(transport, "ANSWER_SECONDS", 1.0)
    faulty.on("GET", "/manifests/", Slow(rate=2), times=None)
    with pytest.raises(RegistryError, match="no complete answer in 1 seconds"):
        Registries(Mirrors()).fetch_manifest(ci)
    assert len(faulty.seen("GET", "/manifests/")) == 1


def test_slow_blob_has_more_time(faulty: FaultProxy, ci: ImageRef, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a large layer over a slow line fails, because it has no more time than a manifest."""
    asked = Registries(Mirrors())
    blob, digest = content(300_000)
    monkeypatch.setattr(transport, "ANSWER_SECONDS", 1.0)
    faulty.on("PUT", "/blobs/uploads/", Slow(rate=100_000))
    put(asked, ci, blob)
    assert asked.fetch_blob(ci, digest) == blob


def test_pages_without_an_end(faulty: FaultProxy, ci: ImageRef, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a list of tags whose every page links to a new one makes prune read for ever."""
    monkeypatch.setattr(registry, "_MOST_PAGES", 50)
    numbers = itertools.count()

    def page(_: Exchange) -> Answer:
        link = f"</v2/acme/ci/tags/list?last={next(numbers)}>; rel=next"
        return Answer(status=200, body=json.dumps({"tags": ["a"]}).encode(), headers={"Link": link})

    faulty.on("GET", "/tags/", Call(page), times=None)
    with pytest.raises(RegistryError, match="without an end"):
        Registries(Mirrors()).fetch_tags(ci)
    assert len(faulty.seen("GET", "/tags/")) == 50


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("sleep 1000", "has not ended after 1 seconds"),
        ("sleep 1000 & sleep 1000", "has not ended after 1 seconds"),
        ("yes", "prints more than 1,048,576 bytes"),
        ("yes >&2", "prints more than 1,048,576 bytes"),
        ("exec >&- 2>&-; sleep 1000", "has not ended after 1 seconds"),
    ],
)
def test_credential_helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str) -> None:
    """Broken: a credential helper that hangs, or prints without an end, makes a run wait or takes all memory."""
    helper = tmp_path / "docker-credential-odd"
    helper.write_text(f"#!/bin/sh\n{script}\n")
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text('{"credsStore": "odd"}')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr(credentials, "HELPER_SECONDS", 1.0)
    with pytest.raises(CommandError, match=said) as raised:
        credentials.credentials_for("registry.example.com")
    assert raised.value.exit_code == 3
    assert "docker-credential-odd get" in raised.value.hint


def test_both_outputs_are_complete() -> None:
    """Broken: a process that prints much to both of its outputs waits for ever, or loses some."""
    script = "import sys; [(print('a' * 1000), print('b' * 1000, file=sys.stderr)) for _ in range(500)]"
    done = run([sys.executable, "-c", script + "; print(input())"], stdin="end")
    assert (done.returncode, len(done.stdout), len(done.stderr)) == (0, 500 * 1001 + 4, 500 * 1001)


@pytest.mark.parametrize("name", ["-r", "-c", "--requirement"])
def test_endless_file(tmp_path: Path, name: str) -> None:
    """Broken: `-r /dev/zero` in a requirements file takes all memory."""
    lock = tmp_path / "requirements.txt"
    lock.write_text(f"{name} /dev/zero\n")
    with pytest.raises(LockError, match="cannot read /dev/zero: it has more than 64 MiB"):
        read_lock(lock, Install())


def test_endless_lock(tmp_path: Path) -> None:
    """Broken: a lock without an end takes all memory."""
    (tmp_path / "pylock.toml").symlink_to("/dev/zero")
    with pytest.raises(BuilderError, match="it has more than 64 MiB"):
        read_lock(tmp_path / "pylock.toml", Install())
