"""What a locked artifact contains is public; only the artifact with the lock's hash tells."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w

from builder.errors import RegistryError
from builder.layer.artifact import Artifacts
from builder.layer.secrets import record_hash
from builder.layer.store import LayerStore
from builder.lock.model import SelectedPackage
from builder.tree import tree_digest
from builder.verify.vouch import vouched_by_lock
from tests.integration.server import Answer, Request, Server, serving
from tests.layers import chosen

FILE = b"-----BEGIN CERTIFICATE-----\npublic\n"
HASH = record_hash(FILE)
RECORD = "opt/uv/venv/lib/python3.12/site-packages/One_Two-1.0.dist-info/RECORD"

pytestmark = pytest.mark.usefixtures("clean_environment")


def wheel(content: bytes = FILE) -> bytes:
    """A wheel with one file."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("one/cacert.pem", content)
    return packed.getvalue()


def sdist() -> bytes:
    """A source distribution with one file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo("one-1.0/cacert.pem")
        entry.size = len(FILE)
        tar.addfile(entry, io.BytesIO(FILE))
    return gzip.compress(packed.getvalue())


def package(server: Server, content: bytes, name: str = "one_two-1.0-py3-none-any.whl") -> SelectedPackage:
    """A locked package with this artifact."""
    source = {"url": f"http://{server.host}/{name}", "hashes": {"sha256": hashlib.sha256(content).hexdigest()}}
    return replace(chosen("one-two"), source=source, size=len(content))


def vouched(
    served: bytes, monkeypatch: pytest.MonkeyPatch, change: Callable[[SelectedPackage], SelectedPackage]
) -> bool:
    """Whether the file is public where a server has this artifact, and the lock another entry for it."""
    with serving(lambda _: Answer(body=served), monkeypatch) as server:
        return Artifacts().vouch({RECORD: {HASH}}, HASH, [change(package(server, served))])


def test_file_of_an_artifact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a package with a CA bundle of its own cannot be installed behind a company's proxy."""
    assert vouched(wheel(), monkeypatch, lambda each: each)
    with serving(lambda _: Answer(body=sdist()), monkeypatch) as server:
        assert Artifacts().vouch({RECORD: {HASH}}, HASH, [package(server, sdist(), "one-1.0.tar.gz")])


@pytest.mark.parametrize(
    "change",
    [
        lambda each: replace(each, source={**each.source, "hashes": {"sha256": "0" * 64}}),
        lambda each: replace(each, source={**each.source, "hashes": {"md5": "0" * 32}}),
        lambda each: replace(each, source={"url": each.source["url"]}),
        lambda each: replace(each, source={**each.source, "url": "file:///etc/passwd"}),
        lambda each: replace(each, name="another"),
        lambda each: replace(each, size=10),
    ],
)
def test_artifact_that_proves_nothing(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[SelectedPackage], SelectedPackage]
) -> None:
    """Broken: a secret counts as public because of a file that the lock does not vouch for."""
    assert not vouched(wheel(), monkeypatch, change)


@pytest.mark.parametrize(
    "served",
    [wheel(FILE + b"\n"), b"", b"<html>", wheel()[:-30], gzip.compress(b"x")],
    ids=["another wheel", "nothing", "a page", "truncated", "gzip"],
)
def test_other_content(monkeypatch: pytest.MonkeyPatch, served: bytes) -> None:
    """Broken: an artifact without the file, or a damaged one, makes it public or ends the build with a traceback."""
    assert not vouched(served, monkeypatch, lambda each: each)


def test_index_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: an error of the index ends the build with a traceback, or makes a file public."""
    with serving(lambda _: Answer(status=404, body=wheel()), monkeypatch) as server:
        assert not Artifacts().vouch({RECORD: {HASH}}, HASH, [package(server, wheel())])


def test_one_request_with_the_password_of_netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Broken: artifacts of a private index cannot be fetched, or are fetched for each of their files."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login jane password hunter2\n")
    monkeypatch.setenv("NETRC", str(netrc))
    expected = f"Basic {base64.b64encode(b'jane:hunter2').decode()}"

    def answer(request: Request) -> Answer:
        return Answer(body=wheel()) if request.headers.get("authorization") == expected else Answer(status=401)

    with serving(answer, monkeypatch) as server:
        artifacts, locked = Artifacts(), package(server, wheel())
        assert artifacts.vouch({RECORD: {HASH}}, HASH, [locked])
        assert not artifacts.vouch({RECORD: {"sha256=x"}}, "sha256=x", [locked])
        assert not artifacts.vouch({}, HASH, [locked])
        assert len(server.requests) == 1


def recorded(server: Server, served: bytes, **hashes: str) -> str:
    """The selection that an image has recorded, with one wheel that the server has."""
    table = {"sha256": hashlib.sha256(served).hexdigest(), **hashes}
    source = {"url": f"http://{server.host}/one-1.0-py3-none-any.whl", "hashes": table}
    return tomli_w.dumps({"packages": [{"name": "one", "version": "1.0", "wheels": [source]}]})


def test_files_of_a_wheel_that_nobody_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: an image is not compared with its wheels on a machine that did not make it, or they are fetched twice."""
    store, asked = LayerStore(folder=tmp_path), []

    def answer(request: Request) -> Answer:
        asked.append(request)
        return Answer(body=wheel())

    with serving(answer, monkeypatch) as server:
        found = [vouched_by_lock(recorded(server, wheel()), "x", None, store) for _ in range(2)]
    expected = {"one-1.0": [tree_digest({"one/cacert.pem": hashlib.sha256(FILE).hexdigest()})]}
    assert [each.trees for each in found] == [expected] * 2
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("served", "hashes", "words"),
    [
        (wheel(), {"sha256": "0" * 64}, "another hash"),
        (b"<html>", {}, "one-1.0-py3-none-any.whl is no wheel"),
        (b"", {"sha256": "0" * 64}, "another hash"),
    ],
)
def test_wheel_that_cannot_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: bytes, hashes: dict[str, str], words: str
) -> None:
    """Broken: an index that lies about a wheel decides what an image may have in it, or causes a traceback."""
    with serving(lambda _: Answer(body=served), monkeypatch) as server, pytest.raises(RegistryError, match=words):
        vouched_by_lock(recorded(server, served, **hashes), "x", None, LayerStore(folder=tmp_path))
