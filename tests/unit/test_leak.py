"""Secrets are found in what is packed, and in the texts of JSON."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable

import pytest
import zstandard
from isal import igzip

from builder.layer import leak
from builder.layer.leak import LeakSearch, find_leak, find_leak_in_json
from tests.layers import file, tar_of

SECRET = b"hunter2-hunter2"
MARKS = {SECRET: "the password"}
NOISE = bytes(range(256)) * 40


def _zip(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("empty", b"")
        archive.writestr("notes", content)
    return packed.getvalue()


def _tar_gz(content: bytes) -> bytes:
    return gzip.compress(tar_of(file("a", NOISE), file("notes", content)))


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "gzip, two members": lambda content: gzip.compress(NOISE) + gzip.compress(content),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
    "zstd, two frames": lambda content: zstandard.compress(NOISE) + zstandard.compress(content),
    "zip": _zip,
    "tar, gzip": _tar_gz,
    "gzip in a tar": lambda content: tar_of(file("notes.gz", gzip.compress(content))),
    "gzip in a tar in xz": lambda content: lzma.compress(tar_of(file("notes.gz", gzip.compress(content)))),
}


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("size", [512, 700, 1 << 20])
def test_packed(packer: str, size: int) -> None:
    """Broken: a secret goes unnoticed because its file is compressed, or in an archive."""
    packed = PACKERS[packer](NOISE + SECRET + NOISE)
    assert SECRET not in packed
    search = LeakSearch(MARKS)
    for start in range(0, len(packed), size):
        search.feed(packed[start : start + size])
    assert search.finish() == "the password"
    assert find_leak(MARKS, PACKERS[packer](NOISE + SECRET[:-1] + NOISE)) == ""


@pytest.mark.parametrize("packer", [name for name in PACKERS if "tar" not in name and name != "zip"])
def test_damaged(packer: str) -> None:
    """Broken: a file with a damaged end hides the secret before it, or ends the build with a traceback."""
    packed = PACKERS[packer](SECRET + os.urandom(3 << 20))
    assert find_leak(MARKS, packed[:-2]) == "the password"


@pytest.mark.parametrize(
    "magic", [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh9", b"\xfd7zXZ\0", b"PK\3\4", b"x" * 257 + b"ustar"]
)
def test_no_archive(magic: bytes) -> None:
    """Broken: a file that only begins like an archive ends the build with a traceback, or is not searched."""
    assert find_leak(MARKS, magic + NOISE) == ""
    assert find_leak(MARKS, magic + NOISE + SECRET) == "the password"


def test_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: one file that unpacks to petabytes stalls the build."""
    monkeypatch.setattr(leak, "_MOST", 3 << 20)
    read = []
    plain = igzip.IGzipFile.read

    def counted(self: gzip.GzipFile, size: int = -1) -> bytes:
        piece: bytes = plain(self, size)
        read.append(len(piece))
        return piece

    monkeypatch.setattr(igzip.IGzipFile, "read", counted)
    assert find_leak(MARKS, gzip.compress(bytes(50 << 20))) == ""
    assert sum(read) <= 4 << 20


def test_depth_ends() -> None:
    """Broken: an archive in itself is unpacked without an end."""
    packed = SECRET
    for _ in range(20):
        packed = gzip.compress(packed)
    assert find_leak(MARKS, packed) == ""


def test_tar_that_is_an_archive_of_an_archive() -> None:
    """Broken: a tar with an odd member hides the others."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.LNKTYPE, "missing"
        tar.addfile(link)
        content = gzip.compress(SECRET)
        entry = tarfile.TarInfo("a.gz")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    assert find_leak(MARKS, packed.getvalue()) == "the password"


ODD = 'a&<b>"\\é'


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"config": {"Env": [f"P={ODD}"]}}),
        json.dumps({"config": {"Env": [f"P={ODD}"]}}).replace("&", "\\u0026").replace("<", "\\u003c"),
        json.dumps({"config": {"Labels": {ODD: "x"}}}).replace("é", "\\u00E9"),
        json.dumps({"history": [{"created_by": json.dumps([json.dumps({"p": ODD})])}]}),
    ],
)
def test_json(text: str) -> None:
    """Broken: a secret in the config or the history goes unnoticed because its characters are escaped there."""
    marks = {ODD.encode(): "the password"}
    assert find_leak_in_json(marks, text.encode()) == "the password"
    assert find_leak_in_json(marks, json.dumps({"a": ODD[:-1]}).encode()) == ""


@pytest.mark.parametrize("text", [b"{", b"[" * 100_000, b'"\\ud800"', b"\xff"])
def test_no_json(text: bytes) -> None:
    """Broken: a statement that is no JSON ends the check with a traceback, or is not searched."""
    assert find_leak_in_json(MARKS, text) == ""
    assert find_leak_in_json(MARKS, text + SECRET) == "the password"
