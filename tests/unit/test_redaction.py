"""Secrets that the run has read are masked in every form; control characters from outside are escaped."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from builder import redaction
from builder.cli.output.messages import print_error, print_file, print_note, printable
from builder.errors import BuilderError, UsageError
from builder.lock.kept_answer import AnswerCache
from builder.lock.requirements import to_pylock
from builder.oci.credentials import configured_proxies, credentials_for
from builder.oci.reference import Mirrors
from builder.process import quoted
from builder.redaction import keep_secret, redact
from builder.secret import read_build_secrets

PASSWORDS = [
    "hunter2-0",
    "p@ss/wo:rd",
    "quo'te\"d",
    "back\\slash",
    "sp ace",
    "pässwörd",
    "a+b=c%20",
    "$HOME",
    "tok3n-1\r\n",
]


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the secrets of other tests."""
    monkeypatch.setattr(redaction, "_known", set())


FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "percent": lambda secret: quote(secret, safe=""),
    "percent, lower case": lambda secret: re.sub("%..", lambda match: match[0].lower(), quote(secret, safe="")),
    "path": quote,
    "form": quote_plus,
    "JSON": lambda secret: json.dumps({"password": secret}),
    "JSON in Unicode": lambda secret: json.dumps({"password": secret}, ensure_ascii=False),
    "base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "login": lambda secret: base64.b64encode(f"jane:{secret}".encode()).decode(),
    "repr": repr,
    "shell": lambda secret: quoted(["docker", "login", "-p", secret]),
    "shell, quoted": lambda secret: shlex.join(["login", secret]),
    "URL": lambda secret: f"https://jane:{secret}@index.invalid/simple",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secret", PASSWORDS)
def test_every_form(secret: str, form: str) -> None:
    """Broken: a password is printed because it was quoted, escaped or encoded on its way."""
    keep_secret(secret, user="jane")
    said = FORMS[form](secret)
    masked = redact(f"before {said} after")
    assert "***" in masked
    assert secret.strip() not in masked
    assert masked.startswith("before ")
    assert masked.endswith(" after")


def _docker_login(folder: Path, secret: str, _: pytest.MonkeyPatch) -> None:
    auth = base64.b64encode(f"jane:{secret}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {"r.example": {"auth": auth}}}))
    credentials_for("r.example")


def _job(_: Path, secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("CI_REGISTRY", "r.example"), ("CI_REGISTRY_USER", "jane"), ("CI_REGISTRY_PASSWORD", secret)):
        monkeypatch.setenv(name, value)


def _netrc(folder: Path, secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "netrc").write_text(f"machine x.example login jane password {secret}\n")
    monkeypatch.setenv("NETRC", str(folder / "netrc"))
    read_build_secrets()


def _proxy(_: Path, secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://jane:{secret}@proxy.example:3128")


def _docker_proxy(folder: Path, secret: str, _: pytest.MonkeyPatch) -> None:
    proxies = {"default": {"httpsProxy": f"http://jane:{secret}@proxy.example:3128"}}
    (folder / "config.json").write_text(json.dumps({"proxies": proxies}))
    configured_proxies()


def _index(_: Path, secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_INDEX_URL", f"https://jane:{secret}@index.example/simple")


def _variable(folder: Path, secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME", secret)
    with pytest.raises(BuilderError):
        to_pylock(
            folder / "requirements.txt", "-i https://jane:${ACME}@index.example/simple\n--odd ${ACME}\n",
            AnswerCache(folder=None),
        )  # fmt: skip


SOURCES = {
    source.__name__.strip("_"): source
    for source in (_docker_login, _job, _netrc, _proxy, _docker_proxy, _index, _variable)
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("secret", ["hunter2-0", "hun/ter2", "hun@ter2"])
def test_every_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, secret: str) -> None:
    """Broken: a secret is printed because of where it came from."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert redact(f"failed with {secret}") == f"failed with {secret}"
    SOURCES[source](tmp_path, secret, monkeypatch)
    assert redact(f"failed with {secret}") == "failed with ***"
    assert redact(f"failed with {quote(secret, safe='')}") == "failed with ***"


@pytest.mark.parametrize(
    "text",
    [
        "docker.io=https://jane:hunter2@m.example",
        "docker.io=jane:hun/ter2@m.example",
        "docker.io=a:hun,ter=2@m.example",
    ],
)
def test_mirror_with_a_password(text: str) -> None:
    """Broken: a password in --mirror is printed."""
    with pytest.raises(UsageError, match="a mirror has a user name or password") as raised:
        Mirrors.from_strs([text])
    assert "hun" not in str(raised.value)
    with pytest.raises(UsageError, match="a mirror has a user name or password"):
        Mirrors.from_mapping({"docker.io": text.partition("=")[2]})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("over\rwritten", "over\\rwritten"),
        ("\x9b2J\u202egnp.exe\u2066", "\\x9b2J\\u202egnp.exe\\u2066"),
        ("two\r\nlines\tand a tab\n", "two\nlines\tand a tab\n"),
        ("Grüße → 日本", "Grüße → 日本"),
        ("\0", "\\x00"),
    ],
)
def test_control_characters(text: str, shown: str) -> None:
    """Broken: a registry, a file or a build can clear the terminal, or forge what it shows."""
    assert printable(text) == shown
    captured = io.StringIO()
    with redirect_stderr(captured):
        print_note(text)
        print_error(BuilderError(text))
    assert captured.getvalue() == f"{shown}\nbuilder: {shown}\n"


def test_secret_cannot_hide_behind_control_characters() -> None:
    """Broken: a token that ends with CRLF is printed."""
    keep_secret("t0ken-1\r\n")
    assert printable("Authorization: Bearer t0ken-1\r\nnext") == "Authorization: Bearer ***\nnext"


@pytest.mark.parametrize(("is_terminal", "said"), [(True, "a\\x1b[2Jb\n"), (False, "a\x1b[2Jb\n")])
def test_file_on_a_terminal(monkeypatch: pytest.MonkeyPatch, is_terminal: bool, said: str) -> None:
    """Broken: a control character in a pipeline's file reaches the terminal raw, or is lost in a diff to apply."""
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: is_terminal, raising=False)
    with redirect_stdout(out):
        print_file("a\x1b[2Jb\n")
    assert out.getvalue() == said
