"""Hash-pinned requirements are looked up in an index through its simple API."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.errors import LockError
from builder.lock.model import Lock
from builder.lock.read import read_lock
from builder.lock.select import select
from builder.matrix.schema import Install
from tests.cells import alpine, debian
from tests.integration.server import Answer, Request, Server, serving
from tests.locks import fake_hash

FILES = (
    "one-1.0-py3-none-any.whl",
    "one-1.0.tar.gz",
    "one-1.1-py3-none-any.whl",
    "fast-2.0-cp312-cp312-manylinux_2_17_x86_64.whl",
    "fast-2.0-cp312-cp312-win_amd64.whl",
    "fast-2.0.tar.gz",
)

pytestmark = pytest.mark.usefixtures("clean_environment")


def answer(request: Request) -> Answer:
    """Serve a public index at /simple, one for jane at /private, and an empty one at /empty."""
    _, index, name, *_ = request.path.split("/")
    login = "Basic " + base64.b64encode(b"jane:hunter2").decode()
    if index == "private" and request.headers.get("authorization") != login:
        return Answer(status=401)
    files = [file for file in FILES if file.startswith(f"{name}-")] if index != "empty" else []
    if not files:
        return Answer(status=404)
    table = {
        "meta": {"api-version": "1.1"},
        "name": name,
        "files": [
            {"filename": file, "url": f"/files/{file}", "hashes": {"sha256": fake_hash(file)}, "size": len(file)}
            for file in files
        ],
    }
    return Answer(body=json.dumps(table).encode(), headers={"Content-Type": "application/vnd.pypi.simple.v1+json"})


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The running index."""
    with serving(answer, monkeypatch) as server:
        yield server


def pinned(name: str, version: str, *files: str) -> str:
    """A requirements line that pins the files by hash."""
    return f"{name}=={version} " + " ".join(f"--hash=sha256:{fake_hash(file)}" for file in files) + "\n"


ONE = pinned("one", "1.0", *FILES[:2])
FAST = pinned("Fast", "2.0", *FILES[3:])


def read(folder: Path, text: str) -> Lock:
    """Read the requirements."""
    path = folder / "requirements.txt"
    path.write_text(text, encoding="utf-8")
    return read_lock(path, Install())


def test_each_cell_gets_its_files(index: Server, tmp_path: Path) -> None:
    """Broken: a cell gets the wrong file of a pinned package, or none."""
    lock = read(tmp_path, f"--index-url http://{index.host}/simple\n{ONE}{FAST}")
    on_debian, on_alpine = select(lock, debian("3.12")), select(lock, alpine("3.12"))
    assert [each.filename for each in on_debian.packages] == [FILES[3], FILES[0]]
    assert [each.filename for each in on_alpine.packages] == [FILES[5], FILES[0]]
    (fast, _) = on_debian.packages
    assert fast.source["url"] == f"http://{index.host}/files/{FILES[3]}"
    assert fast.source["hashes"] == {"sha256": fake_hash(FILES[3])}
    assert (fast.size, fast.index) == (len(FILES[3]), f"http://{index.host}/simple")


def test_only_files_with_a_pinned_hash(index: Server, tmp_path: Path) -> None:
    """Broken: a file whose hash is not pinned gets into an image."""
    lock = read(tmp_path, f"-i http://{index.host}/simple\n" + pinned("fast", "2.0", FILES[5]))
    (fast,) = select(lock, debian("3.12")).packages
    assert fast.filename == FILES[5]


@pytest.mark.parametrize(("option", "filename"), [("--only-binary", FILES[0]), ("--no-binary", FILES[1])])
@pytest.mark.parametrize("names", [":all:", "one", "other,One"])
def test_binary_options(index: Server, tmp_path: Path, option: str, filename: str, names: str) -> None:
    """Broken: builder ignores --only-binary or --no-binary in a requirements file."""
    lock = read(tmp_path, f"-i http://{index.host}/simple\n{option} {names}\n{ONE}")
    assert [each.filename for each in select(lock, debian("3.12")).packages] == [filename]


def test_first_index_with_a_match(index: Server, tmp_path: Path) -> None:
    """Broken: an extra index is never asked, or is asked before the main one."""
    text = f"--extra-index-url http://{index.host}/simple\n--index-url http://{index.host}/empty\n{ONE}"
    (one,) = select(read(tmp_path, text), debian("3.12")).packages
    assert one.index == f"http://{index.host}/simple"
    assert [request.path for request in index.requests] == ["/empty/one/", "/simple/one/"]


def test_credentials_are_sent_but_not_stored(index: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a private index rejects builder, or its password gets into the lock."""
    monkeypatch.setenv("INDEX_PASSWORD", "hunter2")
    lock = read(tmp_path, f"-i http://jane:${{INDEX_PASSWORD}}@{index.host}/private\n{ONE}")
    selection = select(lock, debian("3.12"))
    assert selection.packages[0].index == f"http://{index.host}/private"
    assert "hunter2" not in repr((lock, selection))


def test_same_pin_in_several_files(index: Server, tmp_path: Path) -> None:
    """Broken: a requirements file is refused because files that it includes repeat a pin."""
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(f"{ONE}{FAST}", encoding="utf-8")
    lock = read(tmp_path, f"-i http://{index.host}/simple\n-r a.txt\n-r b.txt\n{ONE}")
    assert [each.name for each in select(lock, debian("3.12")).packages] == ["fast", "one"]
    assert len(index.requests) == 2


def test_hash_that_no_file_has(index: Server, tmp_path: Path) -> None:
    """Broken: an outdated pin is ignored, or only the first one is reported."""
    lines = pinned("one", "1.0", "other") + pinned("missing", "3.0", "other") + FAST
    with pytest.raises(LockError) as raised:
        read(tmp_path, f"-i http://jane:hunter2@{index.host}/simple\n{lines}")
    assert f"no file matches the pinned hashes at http://{index.host}/simple" in raised.value.what
    assert raised.value.what.endswith(": one==1.0, missing==3.0")
    assert "hunter2" not in str(raised.value)
