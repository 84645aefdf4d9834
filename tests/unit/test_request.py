"""Requests, and the environment variables that affect them."""

from __future__ import annotations

from datetime import date, datetime, timezone
from pathlib import Path

import pytest

from builder.errors import UsageError
from builder.request import Request, read_project, today
from builder.secret import credential_hosts


def test_source_date_epoch_decides_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: an older build cannot be repeated with the system packages of its day."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert today() == date(2023, 11, 14)


@pytest.mark.parametrize("text", ["", "yesterday", "²"])
def test_no_source_date_epoch(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Broken: an empty or invalid SOURCE_DATE_EPOCH causes a traceback, or a wrong date."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    before = datetime.now(timezone.utc).date()
    assert before <= today() <= datetime.now(timezone.utc).date()


@pytest.mark.parametrize("text", ["1" + "0" * 15, "1" + "0" * 30])
def test_source_date_epoch_beyond_the_calendar(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Broken: a number that is too large for a date causes a traceback."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH=10"):
        today()


def test_hosts_with_a_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: the plan says that a private index will refuse the build though there is a credential, or fails."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine index.invalid login jane password hunter2\n", encoding="utf-8")
    assert credential_hosts() == frozenset()
    monkeypatch.setenv("NETRC", str(netrc))
    assert credential_hosts() == {"index.invalid"}
    netrc.write_text("machine", encoding="utf-8")
    assert credential_hosts() == frozenset()


UV_LOCK = """\
lock-version = "1.0"
created-by = "hand"
[[packages]]
name = "uv"
version = "0.11.2"
wheels = [{ name = "uv-0.11.2-py3-none-any.whl", url = "https://index.invalid/uv.whl", hashes = { sha256 = "HASH" } }]
"""
UV_MATRIX = """\
python = ["3.13"]
base = ["bookworm-slim"]
uv = "{}"
[bases.bookworm-slim]
image = "python:{{python}}-slim-bookworm"
family = "debian"
"""


def test_lock_that_installs_another_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: nobody says that jobs run the lock's uv, which cannot read the cache of the image's."""
    (tmp_path / "pylock.toml").write_text(UV_LOCK.replace("HASH", "a" * 64), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    project = read_project(Request())
    assert project.matrix.uv.tag == "0.11.2"
    assert "uv 0.11.2, because the lock installs it" in project.notes
    (tmp_path / "matrix.toml").write_text(UV_MATRIX.format("0.11.1"), encoding="utf-8")
    (warning,) = read_project(Request()).notes
    assert "installs uv 0.11.2, which jobs then run" in warning
    (tmp_path / "matrix.toml").write_text(UV_MATRIX.format("0.11.2"), encoding="utf-8")
    assert read_project(Request()).notes == ()
