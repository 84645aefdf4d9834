"""Days with snow."""

from datetime import date

from dateutil.relativedelta import relativedelta


def season(day: date) -> str:
    """The winter that a day belongs to, from July to June: `2025/26`."""
    first = (day - relativedelta(months=6)).year
    return f"{first}/{(first + 1) % 100:02}"
