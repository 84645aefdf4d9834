"""Tests."""

from rain import per_month


def test_per_month() -> None:
    """Readings of one month are added up."""
    assert per_month([("2026-11-01", 2.5), ("2026-11-21", 0.5)]) == {"2026-11": 3.0}
