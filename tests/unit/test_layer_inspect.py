"""What holds for a layer: no secret in it, files as their RECORDs say, and all of it open to any user."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Mapping

import pytest

from builder.errors import BuildError
from builder.layer.artifact import Artifacts
from builder.layer.inspect import LayerInspector
from builder.layer.plan import Layer
from tests.layers import chosen, file, folder, link, tar_of

Entry = tuple[tarfile.TarInfo, bytes]

SECRET = b"hunter2-hunter2"
MARKS = {SECRET: "the password for index.example of NETRC"}
LAYER = Layer(kind="wheels", key="5" * 64, packages=(chosen("one"),))
SITE = "opt/uv/venv/lib/python3.12/site-packages"
CHUNK = 1 << 20


def hash_of(content: bytes) -> str:
    """A hash as RECORD has it, computed without builder."""
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def record(name: str, files: Mapping[str, bytes]) -> Entry:
    """The RECORD of a package, with the hashes of these files."""
    lines = [f'"{path}",{hash_of(content)},{len(content)}\r\n' for path, content in files.items()]
    own = f"{name}-1.0.dist-info/RECORD"
    return file(f"{SITE}/{own}", "".join([*lines, f"{own},,\r\n"]).encode())


def with_attribute(name: str, value: str) -> Entry:
    """A file with an extended attribute, as tars have them."""
    entry, content = file("opt/uv/a")
    entry.pax_headers = {f"SCHILY.xattr.{name}": value}
    return entry, content


def wheel(*contents: bytes) -> Artifacts:
    """What is known of the package's wheel: the files in it."""
    key = str(LAYER.packages[0].source["hashes"])
    return Artifacts(_known={key: frozenset(map(hash_of, contents))})


def inspect(*entries: Entry, marks: Mapping[bytes, str] = MARKS, artifacts: Artifacts | None = None) -> None:
    """Inspect a layer with these entries, read as a stream."""
    inspector = LayerInspector(
        cell="3.12-slim", marks=marks, artifacts=artifacts or wheel(), raise_if_stopped=lambda: None
    )
    with tarfile.open(fileobj=io.BytesIO(tar_of(*entries)), mode="r|") as tar:
        inspector.inspect(LAYER, tar)


def fault(*entries: Entry, artifacts: Artifacts | None = None) -> str:
    """The error of the layer; it names cell and layer."""
    with pytest.raises(BuildError) as raised:
        inspect(*entries, artifacts=artifacts)
    assert raised.value.what.startswith("3.12-slim: layer wheels: one: ")
    return raised.value.what


def test_good_layer() -> None:
    """Broken: a layer that is as it should be is refused."""
    files = {"one/__init__.py": b"x = 1\n", "a, b.txt": b"comma", "../../../bin/one": b"#!/bin/sh\n"}
    inspect(
        folder("opt/uv/venv"),
        *(file(f"{SITE}/{name}", content) for name, content in files.items() if not name.startswith("..")),
        file("opt/uv/venv/bin/one", files["../../../bin/one"], 0o755),
        record("one", files),
        link("opt/uv/cache/wheels-v7/one", "../archive-v0/x"),
        link("opt/uv/cache/archive-v0/x/one/__init__.py", f"{SITE}/one/__init__.py", hard=True),
    )


@pytest.mark.parametrize("start", [0, CHUNK - len(SECRET), CHUNK - 8, CHUNK - 1, CHUNK, 2 * CHUNK - 3])
def test_secret_in_content(start: int) -> None:
    """Broken: a secret goes unnoticed where two chunks of a file meet."""
    content = b"x" * start + SECRET + b"y" * 10
    assert "the password for index.example of NETRC is in /opt/uv/a" in fault(file("opt/uv/a", content))


@pytest.mark.parametrize(
    "entry",
    [
        file(f"opt/uv/{SECRET.decode()}/a"),
        link("opt/uv/a", f"/tmp/{SECRET.decode()}"),
        folder(f"opt/uv/{SECRET.decode()}"),
        with_attribute(f"user.{SECRET.decode()}", "x"),
        with_attribute("user.note", SECRET.decode()),
    ],
    ids=["name", "link", "folder", "attribute's name", "attribute"],
)
def test_secret_in_a_name(entry: Entry) -> None:
    """Broken: a secret in a name, or in what a link names, goes unnoticed."""
    assert "is in the name, link or attributes of /opt/uv/" in fault(entry)


def test_secret_outside_of_uvs_folder() -> None:
    """Broken: a secret that a system package's script wrote down goes unnoticed."""
    assert "is in /etc/pip.conf" in fault(file("etc/pip.conf", b"password = " + SECRET))


def test_secret_that_a_wheel_contains() -> None:
    """Broken: a package with a CA bundle of its own cannot be installed behind a company's proxy."""
    bundle = b"-- a public bundle, with " + SECRET
    inspect(file(f"{SITE}/one/cacert.pem", bundle), record("one", {"one/cacert.pem": bundle}), artifacts=wheel(bundle))
    # Its copy in the cache is the same file.
    inspect(
        file("opt/uv/cache/archive-v0/x/one/cacert.pem", bundle),
        file(f"{SITE}/one/cacert.pem", bundle),
        record("one", {"one/cacert.pem": bundle}),
        artifacts=wheel(b"another", bundle),
    )


def test_record_does_not_make_a_secret_public() -> None:
    """Broken: a secret gets into images if a RECORD, which the build of a package can write, lists its file."""
    leak = b"leaked: " + SECRET
    entries = [file(f"{SITE}/one/notes.txt", leak), record("one", {"one/notes.txt": leak})]
    assert "is in /opt/uv/venv/lib" in fault(*entries)
    assert "is in /opt/uv/venv/lib" in fault(*entries, artifacts=wheel(leak + b"\n"))


def test_wheel_of_another_package_does_not_make_a_secret_public() -> None:
    """Broken: a RECORD with the name of no locked package makes its files public."""
    leak = b"leaked: " + SECRET
    entries = [file(f"{SITE}/two/notes.txt", leak), record("two", {"two/notes.txt": leak})]
    assert "is in /opt/uv/venv/lib" in fault(*entries, artifacts=wheel(leak))


def test_secret_in_a_compressed_file() -> None:
    """Broken: a secret goes unnoticed in a log or a manual that a package compresses."""
    assert "is in /usr/share/log.gz" in fault(file("usr/share/log.gz", gzip.compress(b"x" * 3000 + SECRET)))
    large = gzip.compress(os.urandom(3 * CHUNK) + SECRET)
    assert "is in /opt/uv/a" in fault(file("opt/uv/a", large))


def test_other_file_with_the_secret_of_a_wheel() -> None:
    """Broken: one public file with a secret makes every other file with that secret public."""
    bundle = b"-- a public bundle, with " + SECRET
    said = fault(
        file(f"{SITE}/one/cacert.pem", bundle),
        record("one", {"one/cacert.pem": bundle}),
        file("opt/uv/cache/leak", b"leaked: " + SECRET),
        artifacts=wheel(bundle),
    )
    assert "is in /opt/uv/cache/leak" in said


def test_file_that_differs_from_its_record() -> None:
    """Broken: a file that was changed after its installation gets into images."""
    said = fault(file(f"{SITE}/one.py", b"import evil\n"), record("one", {"one.py": b"x = 1\n"}))
    assert said.endswith(f"/{SITE}/one.py is not the file that a RECORD lists")


def test_bytecode_of_the_wheel_is_compiled_again() -> None:
    """Broken: numpy 1.26, whose wheel has some bytecode, cannot be baked; or any file may be called bytecode."""
    files = {"one.py": b"x = 1\n", "__pycache__/one.cpython-312.pyc": b"of the wheel"}
    source = file(f"{SITE}/one.py", files["one.py"])
    compiled = file(f"{SITE}/__pycache__/one.cpython-312.pyc", b"of the install")
    inspect(source, compiled, record("one", files))
    for site in ("tools/two/lib/python3.12", "venv/lib/python3.12t"):
        top = f"opt/uv/{site}/site-packages"
        inspect(
            file(f"{top}/one.py", files["one.py"]),
            file(f"{top}/__pycache__/one.cpython-312.pyc", b"of the install"),
            file(f"{top}/one-1.0.dist-info/RECORD", record("one", files)[1]),
        )
    for tag in ("cpython-311", "cpython-312.opt-1", "pypy312"):
        other = f"__pycache__/one.{tag}.pyc"
        said = fault(source, file(f"{SITE}/{other}", b"forged"), record("one", {other: b"of the wheel"}))
        assert f"one.{tag}.pyc is not the file" in said
    del files["one.py"]
    assert "one.cpython-312.pyc is not the file" in fault(compiled, record("one", files))


def test_missing_file() -> None:
    """Broken: a layer that lacks a file of its package gets into images."""
    cached = file("opt/uv/cache/archive-v0/x/one/two.py", b"x = 1\n")
    assert f"/{SITE}/one/two.py, which" in fault(cached, record("one", {"one/two.py": b"x = 1\n"}))


def test_record_that_is_wrong() -> None:
    """Broken: a wheel whose RECORD lists a file that it does not contain, or a wrong hash, cannot be installed."""
    cached = file("opt/uv/cache/archive-v0/x/one.py", b"x = 1\n")
    inspect(cached, link(f"{SITE}/one.py", cached[0].name, hard=True), record("one", {"one.py": b"", "no.py": b""}))


@pytest.mark.parametrize("hard", [True, False])
def test_link_in_place_of_a_file(hard: bool) -> None:
    """Broken: a link to another file passes for a package's file."""
    entries = [file("opt/uv/other", b"import evil\n"), link(f"{SITE}/one.py", "opt/uv/other", hard=hard)]
    assert "is not the file" in fault(*entries, record("one", {"one.py": b"x = 1\n"}))


def test_hard_link_to_the_right_file() -> None:
    """Broken: an environment that shares its files with the cache is refused."""
    content = b"x = 1\n"
    cached = file("opt/uv/cache/archive-v0/x/one.py", content)
    inspect(cached, link(f"{SITE}/one.py", cached[0].name, hard=True), record("one", {"one.py": content}))


def test_two_records_list_one_file() -> None:
    """Broken: two packages that write the same file cannot share a layer, or the file may then be anything."""
    records = record("one", {"tool.py": b"1\n"}), record("two", {"tool.py": b"2\n"})
    inspect(file(f"{SITE}/tool.py", b"1\n"), *records)
    inspect(file(f"{SITE}/tool.py", b"2\n"), *records)
    assert "tool.py is not the file" in fault(file(f"{SITE}/tool.py", b"3\n"), *records)


def test_record_in_the_cache_alone() -> None:
    """Broken: the RECORD of a wheel, which lists files relative to the wheel, is taken for that of an installation."""
    listed = record("one", {"one-1.0.data/scripts/tool": b"#!python\n"})[1]
    inspect(file("opt/uv/cache/archive-v0/x/one-1.0.dist-info/RECORD", listed))


@pytest.mark.parametrize(
    "entry",
    [
        file("opt/uv/cache/a", mode=0o640),
        file("opt/uv/venv/bin/a", mode=0o750),
        folder("opt/uv/cache/b", mode=0o755),
        folder("opt/uv/venv/b", mode=0o770),
    ],
)
def test_closed_to_other_users(entry: Entry) -> None:
    """Broken: a job that does not run as root cannot read the environment, or write to the cache."""
    assert f"/{entry[0].name} is closed to other users" in fault(entry)


def test_modes_elsewhere_are_the_distributions() -> None:
    """Broken: a system package with a private file cannot be installed."""
    inspect(file("etc/shadow", mode=0o640), folder("root", mode=0o700), link("opt/uv/venv/bin/python", "/usr/bin/x"))


def test_layer_without_secrets() -> None:
    """Broken: a build without secrets fails, or skips the RECORDs."""
    inspect(file("opt/uv/a", b"x" * (CHUNK + 1)), marks={})
    with pytest.raises(BuildError, match="is not the file"):
        inspect(file(f"{SITE}/one.py", b"y"), record("one", {"one.py": b"x"}), marks={})


def test_stop_ends_the_inspection() -> None:
    """Broken: Ctrl-C waits until a large layer has been read."""

    def stop() -> None:
        raise KeyboardInterrupt

    inspector = LayerInspector(cell="3.12-slim", marks={}, artifacts=Artifacts(), raise_if_stopped=stop)
    tar = tarfile.open(fileobj=io.BytesIO(tar_of(file("a"), file("b"))), mode="r|")  # noqa: SIM115
    with tar, pytest.raises(KeyboardInterrupt):
        inspector.inspect(LAYER, tar)
