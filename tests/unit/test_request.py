"""Requests, and the environment variables that affect them."""

from __future__ import annotations

from datetime import date, datetime, timezone
from pathlib import Path

import pytest

from builder.errors import UsageError
from builder.request import today
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
