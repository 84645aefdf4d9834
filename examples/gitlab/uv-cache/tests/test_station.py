"""The means, as a function and over HTTP."""

import pandas as pd
from fastapi.testclient import TestClient

from station.app import app
from station.readings import daily_means

READINGS = [
    {"time": "2026-05-01T06:00", "temperature": 8.0},
    {"time": "2026-05-01T14:00", "temperature": 16.0},
    {"time": "2026-05-02T14:00", "temperature": 18.5},
]
MEANS = {"2026-05-01": 12.0, "2026-05-02": 18.5}


def test_daily_means() -> None:
    """A day is one row."""
    assert daily_means(pd.DataFrame(READINGS)) == MEANS


def test_daily_means_over_http() -> None:
    """The service answers what the function does."""
    assert TestClient(app).post("/means", json=READINGS).json() == MEANS
