"""Tests of `snow`."""

from datetime import date

from snow import season


def test_season() -> None:
    """Broken: a winter ends with the year."""
    assert season(date(2025, 12, 24)) == season(date(2026, 1, 6)) == "2025/26"
