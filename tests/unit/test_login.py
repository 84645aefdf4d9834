"""Logins of indexes and git servers, which builds get as one netrc file."""

from __future__ import annotations

import netrc
import os
import stat
from pathlib import Path

import pytest

from builder.errors import MatrixError, UsageError
from builder.login import hand_over_logins
from builder.matrix.file import parse_matrix, read_matrix
from builder.memory import keep_in_memory
from builder.redaction import redact
from builder.request import Request, read_project
from builder.secret import credential_hosts, read_build_secrets
from tests import locks
from tests.matrices import SMALL

ACME = {"name": "acme-corp.1", "url": "https://index.example:8443/simple"}


@pytest.fixture(autouse=True)
def _own_netrc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what a test does to NETRC."""
    monkeypatch.setenv("NETRC", "")


def handed_over() -> dict[str, tuple[str, str]]:
    """The user name and password for each host, as a build finds them."""
    hosts = netrc.netrc(str(read_build_secrets()["netrc"])).hosts
    return {host: (user, password or "") for host, (user, _, password) in hosts.items()}


def test_variables_of_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: what logs uv in to a private index does not log in a build, or is printed."""
    monkeypatch.setenv("UV_INDEX_ACME_CORP_1_USERNAME", "jane")
    monkeypatch.setenv("UV_INDEX_ACME_CORP_1_PASSWORD", "hunter2+/x")
    hand_over_logins([{"url": "https://other.example/simple"}, ACME], [])
    assert handed_over() == {"index.example": ("jane", "hunter2+/x")}
    assert credential_hosts() == {"index.example"}
    monkeypatch.delenv("UV_INDEX_ACME_CORP_1_PASSWORD")
    for form in ("hunter2+/x", "hunter2%2B%2Fx", "amFuZTpodW50ZXIyKy94"):
        assert "hunter2" not in redact(f"say {form}")
        assert redact(f"say {form}") == "say ***"


@pytest.mark.parametrize("variable", ["UV_INDEX", "UV_DEFAULT_INDEX"])
def test_index_that_a_variable_names(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Broken: an index that is set in the pipeline, and not in the project, has no login in a build."""
    monkeypatch.setenv(variable, "https://open.example/a=b acme=https://index.example/simple")
    monkeypatch.setenv("UV_INDEX_ACME_PASSWORD", "hunter2")
    hand_over_logins([], [])
    assert handed_over() == {"index.example": ("__token__", "hunter2")}


def test_login_in_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: an index whose address has a password works for uv and not in a build."""
    hand_over_logins([{"url": "https://jane:hunter%402@index.example/simple"}], [])
    assert handed_over() == {"index.example": ("jane", "hunter@2")}
    monkeypatch.setenv("UV_INDEX_ACME_PASSWORD", "other")
    with pytest.raises(UsageError, match=r"the address of the index index\.example are two logins|are two logins"):
        hand_over_logins(
            [{"url": "https://jane:hunter2@index.example/a"}, {"name": "acme", "url": "https://index.example/b"}], []
        )


def test_declared_in_the_matrix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Broken: a job's token, which the matrix names, is not used, or a laptop without it fails."""
    (tmp_path / "matrix.toml").write_text(
        f'{SMALL}\n[credentials."gitlab.example"]\nusername = "gitlab-ci-token"\npassword = "CI_JOB_TOKEN"\n'
    )
    locks.write(tmp_path, locks.pure("one"))
    monkeypatch.delenv("CI_JOB_TOKEN", raising=False)
    request = Request(matrix=tmp_path / "matrix.toml", lock=tmp_path / "pylock.toml")
    read_project(request)
    assert read_build_secrets() == {}
    monkeypatch.setenv("CI_JOB_TOKEN", "glcbt-64_abc")
    read_project(request)
    read_project(request)  # again, as some commands do
    assert handed_over() == {"gitlab.example": ("gitlab-ci-token", "glcbt-64_abc")}


def test_netrc_of_the_user_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Broken: with one more login, those of the user's netrc file are lost, or an old one wins."""
    own = tmp_path / "netrc"
    own.write_text(
        "machine index.example login old password stale\ndefault login guest password everyone\n"
        "machine git.example\n  login joe\n  password hunter3\n"
    )
    monkeypatch.setenv("NETRC", str(own))
    monkeypatch.setenv("TOKEN_OF_ACME", "hunter2")
    hand_over_logins([], [])
    assert os.environ["NETRC"] == str(own)
    hand_over_logins([], [("index.example", "jane", "TOKEN_OF_ACME")])
    assert handed_over() == {
        "git.example": ("joe", "hunter3"), "index.example": ("jane", "hunter2"), "default": ("guest", "everyone"),
    }  # fmt: skip
    assert Path(os.environ["NETRC"]).read_text().splitlines()[-1].startswith("default ")


def test_two_logins_for_one_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: of two logins for one host, builds get either one."""
    monkeypatch.setenv("UV_INDEX_A_PASSWORD", "hunter2")
    monkeypatch.setenv("UV_INDEX_B_PASSWORD", "hunter3")
    indexes = [{"name": name, "url": f"https://index.example/{name}"} for name in ("a", "b")]
    with pytest.raises(UsageError, match="UV_INDEX_A_PASSWORD and UV_INDEX_B_PASSWORD are two logins") as error:
        hand_over_logins(indexes, [])
    assert "hunter" not in f"{error.value} {error.value.hint}"
    monkeypatch.setenv("UV_INDEX_B_PASSWORD", "hunter2")
    hand_over_logins(indexes, [])
    assert handed_over() == {"index.example": ("__token__", "hunter2")}


@pytest.mark.parametrize("password", ["with space", 'quo"te', "back\\slash", "#hash", "line\nbreak"])
def test_password_that_a_netrc_file_cannot_have(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    """Broken: half of a password is sent, or a part of it is printed."""
    monkeypatch.setenv("UV_INDEX_A_PASSWORD", password)
    with pytest.raises(UsageError, match=r"the login for index\.example in UV_INDEX_A_PASSWORD has a space") as error:
        hand_over_logins([{"name": "a", "url": "https://index.example/"}], [])
    assert password not in f"{error.value} {error.value.hint}"


def test_user_without_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a forgotten variable shows only when the index refuses, after minutes."""
    monkeypatch.setenv("UV_INDEX_A_USERNAME", "jane")
    with pytest.raises(UsageError, match="UV_INDEX_A_PASSWORD"):
        hand_over_logins([{"name": "a", "url": "https://index.example/"}], [])


def test_memory() -> None:
    """Broken: a secret cannot be read twice, or others can read it."""
    path = keep_in_memory("name", b"content")
    assert (path.read_bytes(), path.read_bytes()) == (b"content", b"content")
    assert not stat.S_IMODE(path.stat().st_mode) & 0o077 or "memfd" in str(path.readlink())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('credentials = { "https://index.example" = { password = "TOKEN" } }', "is not a host"),
        (
            'credentials = { "index.example" = { password = "glpat-hunter2" } }',
            "this is no name of an environment variable",
        ),
        (
            'credentials = { "index.example" = { password = "T", username = "a b" } }',
            "credentials.index.example.username",
        ),
        ('ca = "missing.pem"', "ca: cannot read"),
        ('ca = "key.pem"', "has a private key"),
        ('ca = "empty.pem"', "has no certificate in PEM"),
    ],
)
def test_faults_of_a_matrix(tmp_path: Path, text: str, said: str) -> None:
    """Broken: a token in the matrix is printed, or a private key gets into images."""
    (tmp_path / "key.pem").write_text("-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n")
    (tmp_path / "empty.pem").touch()
    (tmp_path / "matrix.toml").write_text(f"{text}\n{SMALL}")
    with pytest.raises(MatrixError) as error:
        read_matrix(tmp_path / "matrix.toml")
    assert said in str(error.value)
    assert "hunter2" not in str(error.value)


def test_credentials_and_ca_are_parsed(tmp_path: Path) -> None:
    """Broken: text around a company's certificates ends up in images, or a default user name is lost."""
    certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    (tmp_path / "ca.pem").write_text(f"subject: secret plans\n{certificate}{certificate}".replace("\n", "\r\n"))
    text = f'ca = "ca.pem"\ncredentials = {{ "index.example" = {{ password = "T" }} }}\n{SMALL}'
    matrix = parse_matrix(text, source="m", folder=tmp_path)
    assert matrix.ca.decode() == certificate * 2
    assert matrix.credentials == (("index.example", "__token__", "T"),)
