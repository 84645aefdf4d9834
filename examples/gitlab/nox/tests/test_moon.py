"""Tests."""

from moon import next_full


def test_next_full() -> None:
    """A month of the moon has 29 days and a half."""
    assert next_full("2026-11-24T14:53:00Z").month == 12
