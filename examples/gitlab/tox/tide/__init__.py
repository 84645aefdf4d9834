"""When the tide is high."""

from datetime import datetime, timedelta

from dateutil.parser import isoparse

BETWEEN = timedelta(hours=12, minutes=25)


def following(high: str) -> datetime:
    """The next high tide after this one."""
    return isoparse(high) + BETWEEN
