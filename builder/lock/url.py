"""URLs in locks and in uv's settings. What is in a URL that a build needs is in the image, for all to read."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from builder.errors import LockError
from builder.redaction import is_secret_name, knows

# How tokens begin, and how long they are: `hf_xet-1.1.whl`, `ghp_import-2.1.tar.gz` and `glfw-2.8.whl` are none.
_TOKEN: Final = re.compile(
    r"""
    glpat-[\w-]{12,}(?:\.\w{2}\.\w{7,9})?
    | gl(?:oas|dt|rtr?|cbt|ptt|ft|imt|agent|wt|soat|ffct)-(?=[\w-]*\d)[\w-]{20,}(?:\.\w{2}\.\w{7,9})?
    | gh[opusr]_[A-Za-z0-9]{30,} | github_pat_\w{22,} | npm_[A-Za-z0-9]{30,} | hf_[A-Za-z]{30,}
    | pypi-Ag[\w-]{16,} | AKCp[A-Za-z0-9]{16,} | xox[a-z]-[A-Za-z0-9-]{10,} | dckr_pat_[\w-]{20,}
    | eyJ[\w-]{8,}\.eyJ[\w-]+(?:\.[\w-]*)?
    """,
    re.VERBOSE,
)
_WORD: Final = re.compile(r"[A-Za-z0-9]{16,}")
_HEXADECIMAL: Final = re.compile(r"[0-9a-f]+|[0-9A-F]+")
_SIGNING: Final = {"sig", "signature", "auth", "authorization", "access_key", "key", "pass", "pwd", "sas", "jwt"}
_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029]")


def without_credentials(url: str) -> str:
    """Return the URL without user name and password, which must never get into an image."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise LockError(f"{url!r} is not a URL: {error}") from error
    user, at, host = parts.netloc.rpartition("@")
    if at and parts.scheme.endswith("ssh"):
        host = f"{user.partition(':')[0]}@{host}"  # with ssh, the user name is part of the address and not secret
    return urlunsplit(parts._replace(netloc=host))


def public_url(url: str, place: str, *, is_index: bool = False) -> str:
    """Return the URL as it may be in an image: without user name and password.

    Raises LockError, which names the place, if it has a secret elsewhere: in its query, its fragment or its path.
    """
    public = without_credentials(url)
    parts = urlsplit(public)
    shown = f"{place}: the URL of {parts.hostname or 'a file'}"
    if _UNPRINTABLE.search(url):
        raise LockError(f"{shown} has a space or a control character", hint="percent-encode it")
    hint = "whoever can pull the image could read it there; use a netrc file (variable NETRC) for credentials"
    fields = parse_qsl(parts.query, keep_blank_values=True) + parse_qsl(parts.fragment)
    if is_index and parts.query:
        raise LockError(f"{shown} has a query, which would be in the image", hint=hint)
    for name, value in fields:
        if is_secret_name(name) or name.lower().rpartition("-")[2] in _SIGNING or _is_token(value):
            raise LockError(f"{shown} has {name!r} in its query, which would be in the image", hint=hint)
    for part in unquote(parts.path).split("/"):
        if _is_token(part) or (is_index and _looks_random(part)):
            raise LockError(f"{shown} has what looks like a token in its path, which would be in the image", hint=hint)
    return public


def _is_token(text: str) -> bool:
    """Whether it is a secret that the run knows, or has the form of a well-known kind of token."""
    return knows(text) or _TOKEN.fullmatch(text) is not None


def _looks_random(text: str) -> bool:
    """Whether a word changes between digits, small and capital letters more often than names do."""
    return any(
        sum(_class_of(one) != _class_of(two) for one, two in pairwise(word)) * 3 >= len(word)
        for word in _WORD.findall(text)
        if not _HEXADECIMAL.fullmatch(word)
    )


def _class_of(character: str) -> int:
    return character.isdigit() + 2 * character.isupper()
