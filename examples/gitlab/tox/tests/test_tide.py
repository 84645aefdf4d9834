"""Tests."""

from tide import following


def test_following() -> None:
    """Two high tides are half a lunar day apart."""
    assert following("2026-11-21T06:00:00Z").hour == 18
