"""The report, as a function and over HTTP."""

import pandas as pd
from fastapi.testclient import TestClient

from shop.app import app
from shop.report import totals

ORDERS = [
    {"product": "tea", "price": 4.5, "quantity": 2},
    {"product": "pot", "price": 30.0, "quantity": 1},
    {"product": "tea", "price": 4.5, "quantity": 1},
]


def test_totals() -> None:
    """The best one comes first."""
    assert list(totals(pd.DataFrame(ORDERS)).items()) == [("pot", 30.0), ("tea", 13.5)]


def test_totals_over_http() -> None:
    """The service answers what the function does."""
    assert TestClient(app).post("/totals", json=ORDERS).json() == {"pot": 30.0, "tea": 13.5}
