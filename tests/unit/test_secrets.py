"""Build secrets: their marks are found wherever they are, and public content is not secret."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import certifi
import pytest
import tomli

from builder.errors import UsageError
from builder.layer.secrets import find_mark, record_hash, recorded_hashes, secret_marks
from builder.matrix.schema import Ssh
from builder.redaction import Login, redact
from builder.secret import PROXY_ARGS, proxy_logins, read_build_secrets, read_uv_python_secret, uses_agent
from tests.cells import debian


def der(name: str, size: int = 900) -> bytes:
    """Bytes in place of a certificate's, because nothing here parses them."""
    return (hashlib.sha512(name.encode()).digest() * (size // 64 + 1))[:size]


def pem(content: bytes, kind: str = "CERTIFICATE", *, end: bytes = b"\n") -> bytes:
    """The content in PEM form."""
    text = base64.b64encode(content)
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return end.join([f"-----BEGIN {kind}-----".encode(), *lines, f"-----END {kind}-----".encode(), b""])


def public() -> bytes:
    """The first certificate in certifi."""
    end = b"-----END CERTIFICATE-----\n"
    return Path(certifi.where()).read_bytes().partition(end)[0] + end


def bundle(folder: Path, *parts: bytes) -> dict[str, Path]:
    """A CA bundle, as a secret file."""
    path = folder / "ca.pem"
    path.write_bytes(b"# a comment\n" + b"\n".join(parts))
    return {"ca": path}


def netrc(folder: Path, text: str) -> dict[str, Path]:
    """A netrc, as a secret file."""
    path = folder / "netrc"
    path.write_text(text, encoding="utf-8")
    return {"netrc": path}


@pytest.mark.parametrize("size", range(880, 944, 7))
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_certificate_is_found_in_both_forms(tmp_path: Path, size: int, end: bytes) -> None:
    """Broken: a private CA in an image goes unnoticed."""
    marks = secret_marks(bundle(tmp_path, pem(der("own", size), end=end)))
    assert find_mark(marks, b"x" + pem(der("own", size)) + b"y") == "certificate 1 of SSL_CERT_FILE"
    assert find_mark(marks, b"x" + der("own", size) + b"y") == "certificate 1 of SSL_CERT_FILE"


@pytest.mark.parametrize("before", [*range(3000, 3050), (1 << 20) - 47])
def test_secret_anywhere_in_a_large_file(tmp_path: Path, before: int) -> None:
    """Broken: a secret goes unnoticed in a file of some size, where not each of its bytes is looked at."""
    marks = secret_marks(bundle(tmp_path, pem(der("own")))) | {b"a-password": "the password"}
    (word,) = (mark for mark in marks if len(mark) == 48)
    noise = der("noise", 1 << 20)
    for mark, said in ((word, "certificate 1 of SSL_CERT_FILE"), (b"a-password", "the password")):
        assert find_mark(marks, noise[:before] + mark + noise[before : before + 3001]) == said
        assert find_mark(marks, noise[:before] + mark) == said
    assert find_mark(marks, noise[:before] + word[:-1] + noise) == ""


def test_found_certificate_is_told_by_its_number(tmp_path: Path) -> None:
    """Broken: the error does not say which certificate of a bundle leaked."""
    marks = secret_marks(bundle(tmp_path, public(), pem(der("one")), pem(der("two"))))
    assert find_mark(marks, pem(der("two"))) == "certificate 3 of SSL_CERT_FILE"


def test_other_certificates_are_not_found(tmp_path: Path) -> None:
    """Broken: an image fails its check because of an unrelated certificate."""
    marks = secret_marks(bundle(tmp_path, pem(der("own"))))
    assert marks
    assert find_mark(marks, pem(der("other")) + der("other") + b"plain text") == ""


@pytest.mark.parametrize(
    ("kind", "size", "is_secret"), [("EC PARAMETERS", 10, False), ("PRIVATE KEY", 48, True), ("PRIVATE KEY", 45, True)]
)
def test_block_of_one_line(tmp_path: Path, kind: str, size: int, is_secret: bool) -> None:
    """Broken: every image fails its check if a bundle has a one-line block, or a leaked one goes unnoticed."""
    marks = secret_marks(bundle(tmp_path, pem(der("key", size), kind)))
    assert find_mark(marks, b"plain text") == ""
    assert bool(find_mark(marks, pem(der("key", size), kind))) == is_secret


def test_public_certificates_are_no_secret(tmp_path: Path) -> None:
    """Broken: every image fails its check, because every CA bundle contains public certificates."""
    assert secret_marks(bundle(tmp_path, public())) == {}
    assert secret_marks(bundle(tmp_path, pem(der("distribution"))), [pem(der("distribution"))]) == {}


def test_password_is_found_plain_and_encoded(tmp_path: Path) -> None:
    """Broken: an index's password in an image goes unnoticed."""
    text = "machine index.invalid login jane password hunter2\nmachine b.invalid login joe password abc\n"
    marks = secret_marks(netrc(tmp_path, text))
    assert "index.invalid" in find_mark(marks, b"https://jane:hunter2@index.invalid")
    assert "index.invalid" in find_mark(marks, b"x " + base64.b64encode(b"hunter2") + b" y")
    assert "index.invalid" in find_mark(marks, b"Authorization: Basic " + base64.b64encode(b"jane:hunter2"))
    assert find_mark(marks, b"abc jane joe index.invalid") == ""


HARD = "p@ss/w\u00f6rd&<\"1'$"


@pytest.mark.parametrize(
    "leak",
    [
        HARD.encode(),
        HARD.encode("latin-1"),
        quote(HARD, safe="").encode(),
        quote(HARD, safe="").lower().encode(),
        json.dumps({"env": f"URL=https://jane:{HARD}@index.invalid"}).encode(),
        json.dumps(HARD, ensure_ascii=False).encode(),
        base64.b64encode(HARD.encode()),
        *(base64.b64encode(f"{user}:{HARD}\n".encode()) for user in ("jane", "joes", "joean")),
        base64.urlsafe_b64encode(f"{{'auth': '{HARD}'}}".encode()),
    ],
)
def test_password_is_found_in_every_form(leak: bytes) -> None:
    """Broken: a password in an image goes unnoticed because it is quoted, escaped or encoded."""
    marks = secret_marks({}, (), [Login(place="HTTPS_PROXY", user="jane", password=HARD)])
    assert find_mark(marks, b"before " + leak + b" after") == "the password for HTTPS_PROXY"
    assert find_mark(marks, b"before after" + bytes(1000)) == ""


def test_password_of_a_proxy_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: the password of a proxy, which the build gets, is in an image and goes unnoticed."""
    (tmp_path / "config.json").write_text('{"proxies": {"default": {"httpProxy": "http://joe:config-0@p.invalid:1"}}}')
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for name in PROXY_ARGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://jane:hunter2@proxy.invalid:1")
    marks = secret_marks({}, (), proxy_logins())
    assert find_mark(marks, b"proxy=http://jane:hunter2@") == "the password for HTTPS_PROXY"
    assert find_mark(marks, b"joe:config-0@") == "the password for proxies.default.httpProxy in Docker's config file"


def test_broken_netrc_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: an invalid netrc causes a traceback after everything was built."""
    path = netrc(tmp_path, "machine index.invalid pasword hunter2\n")["netrc"]
    monkeypatch.setenv("NETRC", str(path))
    with pytest.raises(UsageError, match="netrc") as raised:
        read_build_secrets()
    assert "hunter2" not in str(raised.value)


@pytest.fixture
def wheel_files() -> dict[str, bytes]:
    """The files of a wheel with a CA bundle, and its RECORD."""
    files = {"vendored/cacert.pem": pem(der("own")), "vendored/__init__.py": b""}
    record = "".join(f"{name},{record_hash(content)},{len(content)}\n" for name, content in files.items())
    return {**files, "vendored-1.0.dist-info/RECORD": f'{record}"a,b.py",,\nvendored-1.0.dist-info/RECORD,,\n'.encode()}


def test_record_vouches_for_its_files(wheel_files: dict[str, bytes]) -> None:
    """Broken: a wheel with its own CA bundle makes every image fail its check, or hides a modified file."""
    vouched = recorded_hashes(wheel_files["vendored-1.0.dist-info/RECORD"])
    assert len(vouched) == 2
    assert record_hash(wheel_files["vendored/cacert.pem"]) in vouched
    assert record_hash(wheel_files["vendored/cacert.pem"] + pem(der("another"))) not in vouched


def test_secrets_are_what_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a build lacks the CA bundle, or gets one that the user did not name."""
    assert read_build_secrets() == {}
    ca = bundle(tmp_path, public())["ca"]
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    monkeypatch.setenv("NETRC", "")
    assert read_build_secrets() == {"ca": ca}


def test_key_and_agent_for_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a key for SSH leaks unnoticed or is printed, or a forgotten variable shows late."""
    key = tmp_path / "key"
    key.write_bytes(pem(der("key"), "OPENSSH PRIVATE KEY"))
    (tmp_path / "hosts").write_text("git.example ssh-ed25519 AAAA\n")
    by_key = Ssh.model_validate({"known-hosts": "HOSTS_FILE", "key": "KEY_FILE"})
    by_agent = Ssh.model_validate({"known-hosts": "HOSTS_FILE"})
    monkeypatch.setenv("HOSTS_FILE", str(tmp_path / "hosts"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(UsageError, match="KEY_FILE is not set"):
        read_build_secrets(by_key)
    with pytest.raises(UsageError, match="SSH_AUTH_SOCK is not set"):
        read_build_secrets(by_agent)
    monkeypatch.setenv("KEY_FILE", str(key))
    secrets = read_build_secrets(by_key)
    assert secrets == {"known_hosts": tmp_path / "hosts", "ssh_key": key}
    assert find_mark(secret_marks(secrets), b"x" + key.read_bytes() + b"x") == "the key for SSH"
    line = key.read_text().splitlines()[3]
    assert redact(f"it is {line}") == "it is ***"
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    assert read_build_secrets(by_agent) == {"known_hosts": tmp_path / "hosts"}
    assert (uses_agent(by_agent), uses_agent(by_key), uses_agent(None)) == (True, False, False)


def test_where_uv_finds_pythons_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a build does not find a company's Pythons, or what leads to them leaks unnoticed."""
    from_uv = replace(debian("3.13"), python_source="uv")
    assert read_uv_python_secret([from_uv]) == {}
    monkeypatch.setenv("UV_PYTHON_INSTALL_MIRROR", "https://jane:open-sesame@pythons.example/pbs")
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS_JSON_URL", "https://pythons.example/list.json")
    assert read_uv_python_secret([debian("3.13")]) == {}
    secrets = read_uv_python_secret([debian("3.13"), from_uv])
    assert tomli.loads(secrets["uv_python"].read_text()) == {
        "python-install-mirror": "https://jane:open-sesame@pythons.example/pbs",
        "python-downloads-json-url": "https://pythons.example/list.json",
    }
    assert find_mark(secret_marks(secrets), b"url=open-sesame") == "the password for python-install-mirror"
    assert redact("it is open-sesame") == "it is ***"


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "NETRC"])
def test_secret_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Broken: builds run for minutes before they fail because of a missing file."""
    monkeypatch.setenv(variable, str(tmp_path / "missing"))
    with pytest.raises(UsageError, match=f"{variable} names .*missing, which cannot be read"):
        read_build_secrets()
