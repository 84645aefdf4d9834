"""What a registry that wants to know who asks gets shown, and what not."""

from __future__ import annotations

import base64
import io
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPMessage
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse
from urllib3.exceptions import LocationParseError

from builder.errors import RegistryError
from builder.http import Origin, open_session
from builder.oci.challenge import Challenge
from builder.oci.reference import ImageRef, Mirrors
from builder.oci.registry import Registries

HOST = "registry.example.com"
REF = ImageRef.from_str(f"{HOST}/acme/ci:3.12")
TOKENS = "https://auth.example.com/token"
BEARER = f'Bearer realm="{TOKENS}",service="x"'
BASIC = "Basic " + base64.b64encode(b"jane:hunter2").decode()

pytestmark = pytest.mark.usefixtures("clean_environment")
Response = tuple[int, Mapping[str, str], bytes]


@dataclass
class Answers(HTTPAdapter):
    """Answers requests by a function of method and URL, and remembers them."""

    answer: Callable[[str, str], Response]
    seen: list[requests.PreparedRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """Answer it."""
        self.seen.append(request)
        status, headers, body = self.answer(str(request.method), str(request.url))
        raw = HTTPResponse(body=io.BytesIO(body), headers=headers, status=status, preload_content=False)
        original = HTTPMessage()
        for name, value in headers.items():
            original[name] = value
        ended = SimpleNamespace(msg=original, isclosed=lambda: True, close=lambda: None)
        raw._original_response = ended  # type: ignore[assignment]  # requests reads cookies from it
        return self.build_response(request, raw)


def asked(answers: Answers) -> Registries:
    """Registries that get these answers."""
    registries = Registries(Mirrors())
    for scheme in ("http://", "https://"):
        registries._transport._session.mount(scheme, answers)
    return registries


def log_in(folder: Path, monkeypatch: pytest.MonkeyPatch, **entry: str) -> None:
    """Do what `docker login` does."""
    (folder / "config.json").write_text(json.dumps({"auths": {HOST: entry}}), encoding="utf-8")
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))


def behind_tokens(method: str, url: str) -> Response:
    """A registry that wants a token, and then has nothing."""
    if url.startswith(TOKENS):
        return 200, {}, b'{"access_token": "t0ken"}'
    return 401, {"WWW-Authenticate": BEARER}, b""


@pytest.mark.parametrize(
    "header",
    [
        f'{BEARER}, Basic realm="x"',
        f'Basic realm="x", {BEARER}',
        f"Negotiate, {BEARER}",
        f'NTLM TlRM/+==, Digest realm="x", nonce="y" ,{BEARER}, Basic realm="z"',
        f'BEARER Realm = "{TOKENS}" , SERVICE = x',
        f"Bearer realm={TOKENS},service=x,",
        f'Bearer realm="{TOKENS}",service="\\x",error="realm=\\"http://other.example/\\", Basic realm=\\"x\\""',
    ],
)
def test_challenge_among_others(header: str) -> None:
    """Broken: a registry that offers several ways to log in, or writes its offer in another way, cannot be used."""
    home = Origin.of(f"https://{HOST}")
    assert Challenge.parse(header, home, registry=HOST) == Challenge(realm=TOKENS, service="x")


def test_basic_alone() -> None:
    """Broken: a registry that takes passwords itself, beside what builder does not know, gets none."""
    home = Origin.of(f"https://{HOST}")
    found = Challenge.parse('Negotiate, Digest realm="x", nonce="y", Basic realm="z"', home, registry=HOST)
    assert found == Challenge(realm=None, service="")


@pytest.mark.parametrize(
    "header",
    ["", ",,", "Bearer", 'Basicfoo realm="x"', 'Digest realm="https://x.example"', '="x', f"Bearer {'a' * 200_000}",
     f"Bearer realm={'a=' * 4000}", f'Bearer realm="{chr(92) * 8001}', "a" * 8000, "a " * 4000],
)  # fmt: skip
def test_challenge_that_nobody_meets(header: str) -> None:
    """Broken: an odd challenge gets a password, or takes minutes to read."""
    begun = time.process_time()
    with pytest.raises(RegistryError, match=r"without a challenge|names the token server"):
        Challenge.parse(header, Origin.of(f"https://{HOST}"), registry=HOST)
    assert time.process_time() - begun < 5


def test_identity_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: an identity token, as some clouds' logins store it, is no login, or is sent as a password."""
    log_in(tmp_path, monkeypatch, auth=base64.b64encode(b"0000:").decode(), identitytoken="1dentity")
    answers = Answers(behind_tokens)
    with pytest.raises(RegistryError, match="does not allow"):
        asked(answers).fetch_digest(REF)
    _, exchange, again = answers.seen
    assert (exchange.method, exchange.url) == ("POST", TOKENS)
    assert "Authorization" not in exchange.headers
    assert "refresh_token=1dentity" in str(exchange.body)
    assert "scope=repository%3Aacme%2Fci%3Apull" in str(exchange.body)
    assert again.headers["Authorization"] == "Bearer t0ken"


@pytest.mark.parametrize("challenge", [BEARER, 'Basic realm="x"'])
def test_identity_token_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, challenge: str) -> None:
    """Broken: an identity token goes where the token server redirects to, or to a registry that wants a password."""
    log_in(tmp_path, monkeypatch, identitytoken="1dentity")

    def answer(_: str, url: str) -> Response:
        if url.startswith(TOKENS):
            return 307, {"Location": "https://other.example/token"}, b""
        return 401, {"WWW-Authenticate": challenge}, b""

    answers = Answers(answer)
    with pytest.raises(RegistryError, match=r"a redirect of a secret to https://other\.example|requires a password"):
        asked(answers).fetch_digest(REF)
    assert {each.url for each in answers.seen if "1dentity" in f"{each.body!r}{each.headers}"} <= {TOKENS}


def test_password_that_is_not_utf_8(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a password of other bytes than UTF-8 causes a traceback."""
    monkeypatch.setenv("CI_REGISTRY", HOST)
    monkeypatch.setenv("CI_REGISTRY_USER", "jane")
    monkeypatch.setitem(os.environ, "CI_REGISTRY_PASSWORD", b"p\xff\xfe".decode("utf-8", "surrogateescape"))
    answers = Answers(lambda *_: (401, {"WWW-Authenticate": "Basic"}, b""))
    with pytest.raises(RegistryError, match="does not allow"):
        asked(answers).fetch_digest(REF)
    assert answers.seen[-1].headers["Authorization"] == "Basic " + base64.b64encode(b"jane:p\xff\xfe").decode()


def test_token_server_that_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a token server that fails for a moment ends a run, where a registry that does is asked again."""
    monkeypatch.setattr("builder.oci.transport._PAUSES", (0.0, 0.0))
    states = iter([503, 429, 200])

    def answer(_: str, url: str) -> Response:
        return (next(states), {}, b'{"token": "t0ken"}') if url.startswith(TOKENS) else behind_tokens("", url)

    with pytest.raises(RegistryError, match="does not allow"):
        asked(Answers(answer)).fetch_digest(REF)
    assert list(states) == []


def test_host_that_no_resolver_takes() -> None:
    """Broken: a redirect to a host name with a label of more than 63 characters causes a traceback."""

    def answer(_: str, url: str) -> Response:
        if "aaa" in url:
            raise LocationParseError("label empty or too long")
        return 307, {"Location": f"https://{'a' * 70}.example/x"}, b""

    with pytest.raises(RegistryError, match="invalid address"):
        asked(Answers(answer)).fetch_digest(REF)


@pytest.mark.parametrize("status", [100, 304, 999])
def test_status_that_is_no_success(status: int) -> None:
    """Broken: a write counts as done whose answer has a status that no specification calls success."""
    digest = "sha256:" + "0" * 64
    answers = Answers(lambda *_: (status, {}, b""))
    with pytest.raises(RegistryError, match=f"answered {status}"):
        asked(answers).delete(ImageRef.from_str(f"{HOST}/acme/ci@{digest}"))


@pytest.mark.parametrize("is_named", [False, True])
def test_login_for_all_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_named: bool) -> None:
    """Broken: a host that an index redirects to gets the login that a netrc file has for all others."""
    named = "machine files.example login jane password other\n" if is_named else ""
    (tmp_path / "netrc").write_text(f"{named}default login jane password hunter2\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    moved = {"Location": "https://files.example/x"}
    answers = Answers(lambda _, url: (200, {}, b"") if "files" in url else (302, moved, b""))
    session = open_session(stopped=threading.Event())
    session.mount("https://", answers)
    session.request("GET", "https://index.example/simple/x")
    assert [each.headers.get("Authorization") for each in answers.seen] == [
        BASIC, "Basic " + base64.b64encode(b"jane:other").decode() if is_named else None
    ]  # fmt: skip


def test_cookies() -> None:
    """Broken: what one server said about a user is told to it again, or to its neighbours."""
    answers = Answers(lambda *_: (404, {"Set-Cookie": "who=jane; Domain=example.com; Path=/"}, b""))
    registries = asked(answers)
    for host in (HOST, HOST, "other.example.com"):
        registries.fetch_digest(ImageRef.from_str(f"{host}/acme/ci:3.12"))
    assert [each.headers.get("Cookie") for each in answers.seen] == [None, None, None]
