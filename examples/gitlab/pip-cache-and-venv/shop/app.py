"""The report over HTTP."""

import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel

from shop.report import totals


class Order(BaseModel):
    """One line of an order."""

    product: str
    price: float
    quantity: int


app = FastAPI()


@app.post("/totals")
def post_totals(orders: list[Order]) -> dict[str, float]:
    """The totals of these orders."""
    return totals(pd.DataFrame([order.model_dump() for order in orders]))
