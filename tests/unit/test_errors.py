"""Errors: exit codes, wording, and redacted secrets."""

from __future__ import annotations

import time

import pytest

from builder import errors
from builder.errors import BuilderError, listed, near
from builder.process import quoted
from builder.redaction import redact

EXIT_CODES = {
    "BuilderError": 1,
    "BuildError": 1,
    "VerifyError": 1,
    "UsageError": 2,
    "MatrixError": 2,
    "LockError": 2,
    "GitLabFileError": 2,
    "CommandError": 3,
    "EngineError": 3,
    "RegistryError": 3,
    "PublishError": 4,
    "InterruptedRun": 130,
}


def test_exit_code_of_every_error() -> None:
    """Broken: an exit code differs from the documentation, which scripts rely on."""
    classes = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, BuilderError)]
    assert {each.__name__: each.exit_code for each in classes} == EXIT_CODES


def test_hint_stands_below_what_is_wrong() -> None:
    """Broken: an error does not say what to do."""
    assert str(BuilderError("no lock", hint="write one")) == "no lock\n  write one"
    assert str(BuilderError("no lock")) == "no lock"


def test_near_word_is_offered_and_a_far_one_is_not() -> None:
    """Broken: a mistyped key gets no suggestion, or an absurd one."""
    assert near("packges", ["packages", "image"]) == " (perhaps you meant 'packages'?)"
    assert near("zzz", ["packages", "image"]) == ""
    assert near("zzz", []) == ""


def test_long_lists_are_cut() -> None:
    """Broken: an error fills the screen with names."""
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(n) for n in range(12)], most=3) == "0, 1, 2 and 9 more"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("https://jane:hunter2@index.invalid/simple", "https://***@index.invalid/simple"),
        ("git+https://t0ken@git.invalid/x.git", "git+https://***@git.invalid/x.git"),
        ("two https://a:b@x.invalid and HTTPS://c:d@y.invalid", "two https://***@x.invalid and HTTPS://***@y.invalid"),
        ("https://jane:p@ss@index.invalid/", "https://***@index.invalid/"),
        ("https://index.invalid/a@b", "https://index.invalid/a@b"),
        ("jane@index.invalid", "jane@index.invalid"),
    ],
)
def test_credentials_in_urls_are_redacted(text: str, redacted: str) -> None:
    """Broken: a password in a URL is printed, or a URL without one is changed."""
    assert redact(text) == redacted


@pytest.mark.parametrize(
    "name",
    [
        "CI_REGISTRY_PASSWORD",
        "CI_JOB_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "UV_INDEX_ACME_PASSWORD",
        "db_passwd",
        "ACME_API_KEY",
    ],
)
def test_secret_variables_are_redacted(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Broken: the value of a secret CI variable gets into a log."""
    monkeypatch.setenv(name, "Tr0ub4dor")
    assert redact("login with Tr0ub4dor failed") == "login with *** failed"


def test_secret_that_begins_like_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: the end of a secret is printed because its beginning is a secret too."""
    monkeypatch.setenv("A_TOKEN", "Tr0ub4")
    monkeypatch.setenv("B_TOKEN", "Tr0ub4dor&3")
    assert redact("said Tr0ub4dor&3") == "said ***"


@pytest.mark.parametrize("piece", ["a", "a://", "a://b", "a://b@", "://", "@", "a.b-c+d", "Tr0ub4dor", "Tr0ub4do"])
def test_redaction_takes_linear_time(monkeypatch: pytest.MonkeyPatch, piece: str) -> None:
    """Broken: one long line stalls a build."""
    monkeypatch.setenv("CI_JOB_TOKEN", "Tr0ub4dor")
    text = piece * (1_000_000 // len(piece))
    begun = time.process_time()
    redact(text)
    assert time.process_time() - begun < 2  # 19 seconds for 40,000 characters if it is quadratic


def test_short_and_plain_values_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a variable such as TOKEN=on removes ordinary words from the output."""
    monkeypatch.setenv("SOME_TOKEN", "on")
    monkeypatch.setenv("SOME_NAME", "station")
    assert redact("installation of station") == "installation of station"


def test_echoed_commands_are_quoted_and_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a logged command cannot be pasted into a shell, or shows a password."""
    monkeypatch.setenv("CI_JOB_TOKEN", "Tr0ub4dor")
    assert quoted(["docker", "login", "-p", "Tr0ub4dor", "a b"]) == "docker login -p *** 'a b'"
