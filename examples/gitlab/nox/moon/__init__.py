"""The phases of the moon."""

from datetime import datetime, timedelta

from dateutil.parser import isoparse

MONTH = timedelta(days=29, hours=12, minutes=44)


def next_full(full: str) -> datetime:
    """The next full moon after this one, on average."""
    return isoparse(full) + MONTH
