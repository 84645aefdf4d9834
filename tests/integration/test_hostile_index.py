"""An index that answers anything: sdists that are bombs or no archives, and headers with odd numbers."""

from __future__ import annotations

import gzip
import io
import tarfile
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from builder.layer.sizes import fetch_sizes
from builder.layer.store import LayerStore
from builder.lock import source_tree
from builder.lock.index import PinnedProject, fetch_files
from builder.lock.kept_answer import AnswerCache
from builder.lock.source_tree import fetch_source_trees
from tests.integration.server import Answer, serving
from tests.layers import built, chosen
from tests.locks import fake_hash

pytestmark = pytest.mark.usefixtures("clean_environment")

GOOD = b'[build-system]\nrequires = ["maturin"]\nbuild-backend = "maturin"\n'


def tarred(*files: tuple[str, bytes]) -> bytes:
    """A compressed tar of these files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(packed.getvalue())


def zipped(*files: tuple[str, bytes]) -> bytes:
    """A zip of these files."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return packed.getvalue()


def is_rust(content: bytes, filename: str, monkeypatch: pytest.MonkeyPatch) -> bool | None:
    """What is said of an sdist with this content; None if nothing is."""
    with serving(lambda _: Answer(body=content), monkeypatch) as server:
        source = {"url": f"http://{server.host}/{filename}", "hashes": {"sha256": "0" * 64}}
        trees = fetch_source_trees([replace(built("one"), source=source, filename=filename)], None)
    return next((tree.is_rust for tree in trees.values()), None)


@pytest.mark.parametrize(
    ("content", "filename"),
    [
        (b"no zip", "one-1.0.zip"),
        (b"PK\3\4", "one-1.0.zip"),
        (zipped(("one-1.0/pyproject.toml", GOOD))[:-9], "one-1.0.zip"),
        (b"no tar", "one-1.0.tar.gz"),
        (b"\x1f\x8b\x08", "one-1.0.tar.gz"),
        (tarred(("one-1.0/pyproject.toml", GOOD))[:-30], "one-1.0.tar.gz"),
        (tarred(("one-1.0/pyproject.toml", b"\xff")), "one-1.0.tar.gz"),
    ],
)
def test_sdist_that_is_none(monkeypatch: pytest.MonkeyPatch, content: bytes, filename: str) -> None:
    """Broken: a damaged sdist, which was only looked at for a hint, ends the plan with a traceback."""
    assert is_rust(content, filename, monkeypatch) is None


@pytest.mark.parametrize("pyproject", [b"build-system = 1", b"[build-system]\nrequires = 5", b"a = " + b"[" * 5000])
def test_odd_pyproject_of_an_sdist(monkeypatch: pytest.MonkeyPatch, pyproject: bytes) -> None:
    """Broken: an odd pyproject.toml in an sdist ends the plan with a traceback."""
    assert is_rust(tarred(("one-1.0/pyproject.toml", pyproject)), "one-1.0.tar.gz", monkeypatch) is False


def test_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: an sdist that unpacks to gigabytes fills the memory, or keeps the plan busy for minutes."""
    monkeypatch.setattr(source_tree, "_MOST_UNPACKED", 1 << 20)
    monkeypatch.setattr(source_tree, "_LARGEST_PYPROJECT", 1 << 10)
    large = GOOD + b"#" * (2 << 20)
    assert is_rust(tarred(("one-1.0/pyproject.toml", GOOD)), "one-1.0.tar.gz", monkeypatch) is True
    assert is_rust(tarred(("one-1.0/pyproject.toml", large)), "one-1.0.tar.gz", monkeypatch) is None
    assert is_rust(zipped(("one-1.0/pyproject.toml", large)), "one-1.0.zip", monkeypatch) is True


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "²", "1e9"])
def test_odd_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: str) -> None:
    """Broken: an odd length of an artifact ends the plan with a traceback."""
    with serving(lambda _: Answer(headers={"Content-Length": length}), monkeypatch) as server:
        package = replace(chosen("one"), source={"url": f"http://{server.host}/one"}, size=None)
        assert fetch_sizes([package], LayerStore(folder=tmp_path), threading.Event()) == {}


@pytest.mark.parametrize("age", ["9" * 400, "9" * 5000, "-1", "²", ""])
def test_odd_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: str) -> None:
    """Broken: an odd max-age of an index's page ends the plan with a traceback, or is believed for ever."""
    hash_ = fake_hash("one")
    page = f'<a href="one-1.0-py3-none-any.whl#sha256={hash_}">one-1.0-py3-none-any.whl</a>'.encode()
    answer = Answer(body=page, headers={"Content-Type": "text/html", "Cache-Control": f"max-age={age}"})
    with serving(lambda _: answer, monkeypatch) as server:
        pin = PinnedProject(name="one", version="1.0", hashes={"sha256": frozenset({hash_})})
        cache = AnswerCache(folder=tmp_path)
        for _ in range(2):
            ((file,),) = fetch_files([pin], [f"http://{server.host}/simple"], cache)
            assert file.filename == "one-1.0-py3-none-any.whl"
        kept = cache.find(f"http://{server.host}/simple/one/", [hash_])
        assert kept is None or kept.fresh_until < time.time() + 10**9
