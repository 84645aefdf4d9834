"""Keeps secrets out of text that leaves the program: the values that the run has read, then whatever looks like one."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import quote, quote_plus

_SECRET_NAME: Final = re.compile(r"PASSWORD|PASSWD|TOKEN|SECRET|CREDENTIAL|PRIVATE_KEY|API_?KEY", re.IGNORECASE)
_USERINFO: Final = re.compile(r"(?<=[a-z0-9+.-]://)[^/\s'\"]+@", re.IGNORECASE)
# The password of a URL, even one that should have been percent-encoded, up to what looks like the rest of the URL.
_URL_PASSWORD: Final = re.compile(r"://(?P<user>[^/\s@:]*):(?P<password>\S+?)@(?=[\w.-]+(?::\d+)?(?:[/,?#]|\s|$))")
_SHORTEST: Final = 4  # characters; a shorter value would blank out ordinary words
_SURE: Final = 8  # characters
_MASK: Final = "***"

_known: set[str] = set()


@dataclass(frozen=True, kw_only=True)
class Login:
    """A user name and a password; `place` says where they come from."""

    place: str
    user: str
    password: str


def keep_secret(value: str, *, user: str = "") -> None:
    """Mask a value in all text from now on, in every form; with `user` also the login of both in base64."""
    _known.update(secret_forms(value, user))


def keep_url_secret(url: str) -> None:
    """Mask the passwords in a text that contains URLs from now on."""
    for user, password in url_logins(url):
        keep_secret(password, user=user)


def url_logins(text: str) -> Iterator[tuple[str, str]]:
    """The user names and passwords of the URLs in a text."""
    return ((match["user"], match["password"]) for match in _URL_PASSWORD.finditer(text))


def knows(text: str) -> bool:
    """Whether a text is a secret that the run has read, and so long that this is no coincidence."""
    return len(text) >= _SURE and (text in _known or any(text == value for _, value in _environment()))


def is_secret_name(name: str) -> bool:
    """Whether a variable or field of this name has a secret, as far as a name tells."""
    return _SECRET_NAME.search(name) is not None


def redact(text: str) -> str:
    """Replace the secrets in a text by `***`.

    These are the values that `keep_secret` got, those of environment variables with secret-looking names, the passwords
    of URLs in other variables, and credentials in URLs.
    """
    pattern = _pattern(frozenset(_known), frozenset(_environment()))
    return _USERINFO.sub(f"{_MASK}@", pattern.sub(_MASK, text) if pattern else text)


def _environment() -> Iterator[tuple[str, str]]:
    """The secrets in environment variables, each with the user name that it belongs to, if known."""
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name):
            yield "", value
        elif "@" in value:
            yield from url_logins(value)


@lru_cache(maxsize=4)
def _pattern(known: frozenset[str], environment: frozenset[tuple[str, str]]) -> re.Pattern[str] | None:
    """A pattern for all secrets; the longest come first, as a short one may be the beginning of a longer one."""
    forms = known.union(*(secret_forms(value, user) for user, value in environment))
    return re.compile("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))) if forms else None


def secret_forms(value: str, user: str) -> set[str]:
    """The forms in which a secret may appear in a text: whole or by line, quoted, escaped or encoded.

    None, if it has fewer than four characters.
    """
    parts = {value, value.strip(), *(line.strip() for line in value.splitlines())}
    long = [part for part in parts if len(part) >= _SHORTEST]
    return set(_quoted(long)) | set(_encoded(long, user))


def _quoted(values: Iterable[str]) -> Iterator[str]:
    for value in values:
        percent = quote(value, safe="", errors="replace")
        yield from (value, repr(value)[1:-1], shlex.quote(value).strip("'"))
        yield from (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1])
        yield from (percent, re.sub("%..", lambda match: match[0].lower(), percent))
        yield from (quote(value, errors="replace"), quote_plus(value, errors="replace"))


def _encoded(values: Iterable[str], user: str) -> Iterator[str]:
    for value in values:
        for whole in (value, f"{user}:{value}"):
            content = whole.encode(errors="replace")
            for text in (base64.b64encode(content).decode(), base64.urlsafe_b64encode(content).decode()):
                yield text
                yield text.rstrip("=")
