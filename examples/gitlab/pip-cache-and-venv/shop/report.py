"""The sales report."""

import pandas as pd


def totals(orders: pd.DataFrame) -> dict[str, float]:
    """What each product has brought in, the best one first; orders have a product, a price and a quantity."""
    income = (orders["price"] * orders["quantity"]).groupby(orders["product"]).sum()
    return {str(product): float(total) for product, total in income.sort_values(ascending=False).items()}
