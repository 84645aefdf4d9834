"""Hash-pinned requirements are looked up in an index through its simple API."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from builder.errors import LockError, RegistryError
from builder.lock.model import Lock
from builder.lock.preflight import preflight
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
    "local-1.0+cpu-py3-none-any.whl",
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
FAST = pinned("Fast", "2.0", *FILES[3:6])


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


def test_hash_of_another_version(index: Server, tmp_path: Path) -> None:
    """Broken: a pin with the hash of another version gives an error that only a developer understands."""
    with pytest.raises(LockError, match=r"no file matches the pinned hashes at .*: one==1\.1rc1"):
        read(tmp_path, f"-i http://{index.host}/simple\n" + pinned("one", "1.1rc1", FILES[0]))


def test_pin_that_no_cell_selects(index: Server, tmp_path: Path) -> None:
    """Broken: a whole file is refused for a package that only other platforms need, or its cells do not say why."""
    other = pinned("gone", "1.0", "other").replace("==1.0", "==1.0 ; python_version < '3.12'")
    lock = read(tmp_path, f"-i http://{index.host}/simple\n{other}{ONE}")
    assert [each.name for each in select(lock, debian("3.12")).packages] == ["one"]
    with pytest.raises(LockError, match=r"no file of package 'gone' 1.0 with a pinned hash \(requirements.txt:2\)"):
        select(lock, debian("3.11"))


def test_local_version(index: Server, tmp_path: Path) -> None:
    """Broken: a pin without a local version does not find the file that has one, as those of PyTorch do."""
    (local,) = select(
        read(tmp_path, f"-i http://{index.host}/simple\n" + pinned("local", "1.0", FILES[6])), debian("3.12")
    ).packages
    assert (local.version, local.filename) == ("1.0+cpu", FILES[6])


def test_binary_option_that_leaves_nothing(index: Server, tmp_path: Path) -> None:
    """Broken: the error about an sdist that --only-binary forbids says that the lock has no file."""
    lock = read(tmp_path, f"-i http://{index.host}/simple\n--only-binary fast\n" + pinned("fast", "2.0", FILES[5]))
    with pytest.raises(LockError, match=r"package 'fast' 2.0 is marked as no-build but has no wheel") as raised:
        select(lock, debian("3.12"))
    assert "requirements file" in raised.value.hint


class Recorded:
    """An index whose answers have the given headers, and which answers conditional requests with 304."""

    def __init__(self, **headers: str) -> None:
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.statuses: list[int] = []

    def __call__(self, request: Request) -> Answer:
        """Answer, and note the status."""
        given = answer(request)
        conditions = {request.headers.get("if-none-match"), request.headers.get("if-modified-since")}
        if conditions & {self.headers.get("ETag", ""), self.headers.get("Last-Modified", "")}:
            given = Answer(status=304)
        self.statuses.append(given.status)
        return Answer(status=given.status, body=given.body, headers={**given.headers, **self.headers})


@pytest.mark.parametrize(
    ("headers", "statuses"),
    [
        ({"ETag": '"abc"'}, [200, 304]),
        ({"Last_Modified": "Fri, 20 Nov 2026 10:00:00 GMT"}, [200, 304]),
        ({"ETag": '"abc"', "Cache_Control": "max-age=600, public"}, [200]),
        ({"ETag": '"abc"', "Cache_Control": "no-cache, max-age=600"}, [200, 304]),
        ({"Cache_Control": "no-store"}, [200, 200]),
        ({}, [200]),
    ],
)
def test_answers_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, headers: Mapping[str, str], statuses: list[int]
) -> None:
    """Broken: each plan fetches the whole pages of an index again, or uses an answer that has changed."""
    recorded = Recorded(**headers)
    with serving(recorded, monkeypatch) as server:
        path = tmp_path / "requirements.txt"
        path.write_text(f"-i http://jane:hunter2@{server.host}/simple\n{ONE}", encoding="utf-8")
        first, second = (select(read_lock(path, Install(), tmp_path / "cache"), debian()) for _ in range(2))
    assert first == second
    assert recorded.statuses == statuses
    kept = [file.read_bytes() for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert not any(b"hunter2" in content for content in kept)


def test_other_pins_are_asked_for(index: Server, tmp_path: Path) -> None:
    """Broken: a kept answer is used for other files than those that it is about."""
    for version, file in (("1.0", FILES[0]), ("1.1", FILES[2])):
        path = tmp_path / "requirements.txt"
        path.write_text(f"-i http://{index.host}/simple\n" + pinned("one", version, file), encoding="utf-8")
        selection = select(read_lock(path, Install(), tmp_path / "cache"), debian())
        assert [each.filename for each in selection.packages] == [file]


@pytest.mark.parametrize("content", ["", "{}", '{"etag": 3}'])
def test_kept_answer_that_cannot_be_read(index: Server, tmp_path: Path, content: str) -> None:
    """Broken: a damaged file in the user's cache causes a traceback, or an image without packages."""
    path = tmp_path / "requirements.txt"
    path.write_text(f"-i http://{index.host}/simple\n{ONE}", encoding="utf-8")
    read_lock(path, Install(), tmp_path / "cache")
    (kept,) = (tmp_path / "cache" / "index").iterdir()
    kept.write_text(content, encoding="utf-8")
    assert len(read_lock(path, Install(), tmp_path / "cache").pylock.packages) == 1


LINKS = f"""<!DOCTYPE html><html><head><base href="/files/"></head><body>
<a href="{FILES[1]}#sha256={fake_hash(FILES[1])}" data-requires-python=">=3.7">{FILES[1]}</a><br/>
<A data-yanked="bad" HREF='{FILES[0]}#sha256={fake_hash(FILES[0])}'>
{FILES[0]}</A>
<a href="{FILES[2]}#sha256={fake_hash(FILES[2])}">{FILES[2]}</a></body></html>"""


def test_html(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: an index that answers in HTML only (PEP 503) cannot be used, or yanked files go unnoticed."""
    page = Answer(body=LINKS.encode(), headers={"Content-Type": "text/html"})
    with serving(lambda _: page, monkeypatch) as server:
        lock = read(tmp_path, f"-i http://{server.host}/simple\n{ONE}")
        (one,) = select(lock, debian("3.12")).packages
        assert one.source["url"] == f"http://{server.host}/files/{FILES[0]}"
        (finding,) = preflight({debian("3.12"): lock}).cells[0].findings
    assert finding.is_yanked


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"files": 3}', b'{"files": [3]}', b'{"meta": {}, "files": []}'])
def test_malformed_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    """Broken: a malformed answer of an index causes a traceback."""
    page = Answer(body=body, headers={"Content-Type": "application/vnd.pypi.simple.v1+json"})
    with serving(lambda _: page, monkeypatch) as server, pytest.raises(RegistryError, match="malformed page of one"):
        read(tmp_path, f"-i http://{server.host}/simple\n{ONE}")
