"""Marks of build secrets: short pieces of their content that must not be anywhere in an image."""

from __future__ import annotations

import base64
import binascii
import contextlib
import csv
import hashlib
import netrc
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

import certifi
import tomli

from builder.contract import CA_SECRET, NETRC_SECRET, SSH_KEY_SECRET, UV_PYTHON_SECRET
from builder.redaction import Login, secret_forms, url_logins

_CERTIFICATE = re.compile(rb"-----BEGIN [A-Z ]+-----\s+(?P<body>[A-Za-z0-9+/=\s]+?)-----END [A-Z ]+-----")
_SHORTEST_ALIGNED: Final = 6  # bytes; what base64 makes of fewer, in the middle of others, would match by chance
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")  # RFC 4648, section 5
_WORD: Final = 8  # bytes, as of memoryview's "Q"
_STRIDE: Final = 40  # bytes; a multiple of a word, and not longer than a certificate's mark less a word
_WORTHWHILE: Final = 4096  # bytes
_SHORTEST_BODY: Final = 40  # characters; shorter PEM blocks are public parameters


def secret_marks(
    files: Mapping[str, Path],
    public_bundles: Iterable[bytes] = (),
    logins: Iterable[Login] = (),
) -> dict[bytes, str]:
    """Return marks of the secrets, each with a description of its secret.

    Certificates in certifi or in one of the public PEM bundles have no marks, because they are not secret.
    """
    marks: dict[bytes, str] = {}
    if CA_SECRET in files:
        public = {body for bundle in (Path(certifi.where()).read_bytes(), *public_bundles) for body in _bodies(bundle)}
        for number, body in enumerate(_bodies(files[CA_SECRET].read_bytes()), start=1):
            if body not in public:
                marks |= dict.fromkeys(_certificate_marks(body), f"certificate {number} of SSL_CERT_FILE")
    if SSH_KEY_SECRET in files:
        for body in _bodies(files[SSH_KEY_SECRET].read_bytes()):
            marks |= dict.fromkeys(_certificate_marks(body), "the key for SSH")
    for login in (*_netrc_logins(files), *_python_logins(files), *logins):
        marks |= dict.fromkeys(_password_marks(login), f"the password for {login.place}")
    return _shortest(marks)


def _netrc_logins(files: Mapping[str, Path]) -> Iterator[Login]:
    if NETRC_SECRET in files:
        for host, (login, _, password) in netrc.netrc(str(files[NETRC_SECRET])).hosts.items():
            yield Login(place=f"{host} of NETRC", user=login, password=password or "")


def _python_logins(files: Mapping[str, Path]) -> Iterator[Login]:
    if UV_PYTHON_SECRET in files:
        for name, value in tomli.loads(files[UV_PYTHON_SECRET].read_text(encoding="utf-8")).items():
            for user, password in url_logins(value):
                yield Login(place=name, user=user, password=password)


def _password_marks(login: Login) -> Iterator[bytes]:
    """The forms of a password in text, and its base64 form wherever it begins in what is encoded."""
    for form in secret_forms(login.password, login.user):
        yield form.encode("utf-8", "surrogateescape")
        with contextlib.suppress(UnicodeEncodeError):
            yield form.encode("latin-1")
    content = login.password.encode("utf-8", "surrogateescape")
    for before in range(3) if len(content) >= _SHORTEST_ALIGNED else ():
        encoded = base64.b64encode(bytes(before) + content)
        whole = encoded[-(-before * 8 // 6) : (before + len(content)) * 8 // 6]  # without what depends on neighbours
        yield from (whole, whole.translate(_URL_SAFE))


def _shortest(marks: Mapping[bytes, str]) -> dict[bytes, str]:
    """Those marks that contain no other: whoever finds the others finds these too."""
    kept: dict[bytes, str] = {}
    for mark in sorted(marks, key=len):
        if not any(other in mark for other in kept):
            kept[mark] = marks[mark]
    return kept


def find_mark(marks: Mapping[bytes, str], content: bytes) -> str:
    """Return the description of the first mark in the content; an empty string if there is none."""
    for mark in _possible(tuple(marks), content):  # a generator would cost as much again as the search
        if mark in content:
            return marks[mark]
    return ""


def _possible(marks: tuple[bytes, ...], content: bytes) -> tuple[bytes, ...]:
    """The marks that may be in the content: a bundle of certificates makes a hundred, and hardly a file has one.

    A long mark anywhere has one of the content's words in it that are a stride apart, so those alone are looked at.
    """
    if len(content) < _WORTHWHILE:
        return marks
    words, short = _words(marks)
    found = memoryview(content)[: len(content) // _WORD * _WORD].cast("Q")[:: _STRIDE // _WORD]
    return short if words.isdisjoint(found) else marks


@lru_cache(maxsize=4)
def _words(marks: tuple[bytes, ...]) -> tuple[frozenset[int], tuple[bytes, ...]]:
    """The words that long marks may show at a stride, and the other marks."""
    long = [mark for mark in marks if len(mark) >= _STRIDE + _WORD - 1]
    starts = range(_STRIDE)
    words = (int.from_bytes(mark[start : start + _WORD], sys.byteorder) for mark in long for start in starts)
    return frozenset(words), tuple(mark for mark in marks if mark not in long)


def record_hash(content: bytes) -> str:
    """Return the hash of a file in the format of a wheel's RECORD (PEP 376 and 427)."""
    return record_hash_of(hashlib.sha256(content).digest())


def record_hash_of(digest: bytes) -> str:
    """Return a SHA-256 digest in that format."""
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def recorded_hashes(record: bytes) -> set[str]:
    """Return the hashes that a RECORD lists."""
    rows = csv.reader(record.decode(errors="replace").splitlines())
    return {row[1] for row in rows if len(row) > 1 and row[1]}


def _bodies(pem: bytes) -> Iterator[bytes]:
    for match in _CERTIFICATE.finditer(pem):
        yield b"".join(match["body"].split())


def _certificate_marks(body: bytes) -> Iterator[bytes]:
    """Its last whole line in PEM, and its end in DER: both are of the signature, which is unique."""
    if len(body) < _SHORTEST_BODY:
        return
    end = (len(body) - 1) // 64 * 64
    yield body[end - 64 : end] if end else body
    try:
        yield base64.b64decode(body, validate=True)[-48:]
    except binascii.Error:
        return
