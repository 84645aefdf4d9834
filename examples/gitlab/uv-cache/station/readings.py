"""What the station has measured."""

import pandas as pd


def daily_means(readings: pd.DataFrame) -> dict[str, float]:
    """Return each day's mean; readings have a time and a temperature."""
    days = pd.to_datetime(readings["time"]).dt.strftime("%Y-%m-%d")
    return {str(day): float(mean) for day, mean in readings["temperature"].groupby(days).mean().items()}
