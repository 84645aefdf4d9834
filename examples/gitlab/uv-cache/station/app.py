"""The means over HTTP."""

import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel

from station.readings import daily_means


class Reading(BaseModel):
    """One measurement."""

    time: str
    temperature: float


app = FastAPI()


@app.post("/means")
def post_means(readings: list[Reading]) -> dict[str, float]:
    """Return the daily means of these readings."""
    return daily_means(pd.DataFrame([reading.model_dump() for reading in readings]))
