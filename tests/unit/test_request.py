"""What a request takes from the environment."""

from __future__ import annotations

from datetime import date, datetime, timezone

import pytest

from builder.errors import UsageError
from builder.request import today


def test_source_date_epoch_decides_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a build of yesterday's commit cannot be repeated with yesterday's system packages."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert today() == date(2023, 11, 14)


@pytest.mark.parametrize("text", ["", "yesterday", "²"])
def test_no_source_date_epoch(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Broken: a variable that is empty, or not a number, ends in a traceback or stops the clock."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    before = datetime.now(timezone.utc).date()
    assert before <= today() <= datetime.now(timezone.utc).date()


@pytest.mark.parametrize("text", ["1" + "0" * 15, "1" + "0" * 30])
def test_source_date_epoch_beyond_the_calendar(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Broken: a number too large for a date ends in a traceback."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH=10"):
        today()
