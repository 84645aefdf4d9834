"""Hosts that the files of a lock come from."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests

from builder import http


@dataclass(frozen=True, kw_only=True)
class Host:
    """A host, and whether a build has a credential for it; `answer` is what it said, None if it was not asked."""

    name: str
    has_credential: bool
    answer: str | None = None


def describe_hosts(urls: Mapping[str, str], credentials: Iterable[str], *, ask: bool) -> tuple[Host, ...]:
    """The hosts by name; `urls` has a URL on each one, which is asked for only if `ask` is set.

    `credentials` are the names of the hosts that a build can log in to.
    """
    known = frozenset(credentials)
    answers = _ask(urls) if ask else {}
    return tuple(Host(name=name, has_credential=name in known, answer=answers.get(name)) for name in sorted(urls))


def _ask(urls: Mapping[str, str]) -> dict[str, str]:
    stopped = threading.Event()
    session = http.open_session(retries=0, stopped=stopped)

    def answer(url: str) -> str:
        if urlsplit(url).scheme not in {"http", "https"}:
            return "not asked: no HTTP"
        try:
            status = session.head(url, allow_redirects=True).status_code
        except requests.RequestException as error:
            return f"cannot be reached: {http.failure_reason(error)}"
        return {401: "asks for a credential", 403: "denies access"}.get(status, "answers" if status < 500 else "fails")

    return dict(zip(urls, http.map_concurrently(answer, urls.values(), stopped), strict=True))
