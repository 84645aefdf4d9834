"""How much it rained."""

from collections.abc import Iterable

from dateutil.parser import isoparse


def per_month(readings: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The sum of all readings of each month, in millimetres."""
    sums: dict[str, float] = {}
    for day, millimetres in readings:
        month = f"{isoparse(day):%Y-%m}"
        sums[month] = sums.get(month, 0) + millimetres
    return sums
