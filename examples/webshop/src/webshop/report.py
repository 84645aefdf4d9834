"""The sales report: what was sold in a span of days (UTC, both ends included)."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy import select
from sqlalchemy.orm import Session

from webshop.models import Order, OrderLine, OrderStatus, Product
from webshop.schemas import CategorySales, DailySales, ProductSales, SalesReportOut

COLUMNS = ["order_id", "day", "sku", "name", "category", "units", "revenue_cents"]

templates = Environment(
    loader=PackageLoader("webshop"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)
templates.filters["money"] = lambda cents: f"{cents / 100:,.2f}"


@dataclass(frozen=True)
class SalesReport:
    start: date
    end: date
    sales: pd.DataFrame
    """One row for each order line, with the columns ``COLUMNS``."""

    @property
    def orders(self) -> int:
        return int(self.sales["order_id"].nunique())

    @property
    def units(self) -> int:
        return int(self.sales["units"].sum())

    @property
    def revenue_cents(self) -> int:
        return int(self.sales["revenue_cents"].sum())

    def by_category(self) -> pd.DataFrame:
        """Best category first, with its share of the revenue."""
        table = (
            self.sales.groupby("category")
            .agg(
                orders=("order_id", "nunique"),
                units=("units", "sum"),
                revenue_cents=("revenue_cents", "sum"),
            )
            .sort_values(["revenue_cents", "category"], ascending=[False, True])
            .reset_index()
        )
        # Everything may have been sold for nothing.
        table["share"] = (table["revenue_cents"] / max(self.revenue_cents, 1)).round(4)
        return table

    def by_day(self) -> pd.DataFrame:
        """Every day of the span, also those without a sale."""
        days = pd.date_range(self.start, self.end, freq="D", name="day")
        return (
            self.sales.groupby("day")
            .agg(orders=("order_id", "nunique"), revenue_cents=("revenue_cents", "sum"))
            .reindex(days, fill_value=0)
            .reset_index()
        )

    def top_products(self, count: int = 5) -> pd.DataFrame:
        return (
            self.sales.groupby(["sku", "name"])
            .agg(units=("units", "sum"), revenue_cents=("revenue_cents", "sum"))
            .reset_index()
            .sort_values(["revenue_cents", "sku"], ascending=[False, True], ignore_index=True)
            .head(count)
        )

    def to_csv(self) -> str:
        return self.sales.to_csv(index=False, date_format="%Y-%m-%d", lineterminator="\n")

    def to_schema(self) -> SalesReportOut:
        return SalesReportOut(
            start=self.start,
            end=self.end,
            orders=self.orders,
            units=self.units,
            revenue_cents=self.revenue_cents,
            by_category=[
                CategorySales.model_validate(row)
                for row in self.by_category().to_dict(orient="records")
            ],
            by_day=[
                DailySales.model_validate(row) for row in self.by_day().to_dict(orient="records")
            ],
            top_products=[
                ProductSales.model_validate(row)
                for row in self.top_products().to_dict(orient="records")
            ],
        )

    def to_html(self) -> str:
        return templates.get_template("report.html").render(report=self.to_schema())


def build_report(session: Session, start: date, end: date) -> SalesReport:
    """Cancelled orders do not count."""
    if end < start:
        raise ValueError(f"the report would end ({end}) before it starts ({start})")
    query = (
        select(
            Order.id,
            Order.created_at,
            Product.sku,
            Product.name,
            Product.category,
            OrderLine.quantity,
            OrderLine.unit_price_cents,
        )
        .join(Order.lines)
        .join(OrderLine.product)
        .where(
            Order.status == OrderStatus.PLACED,
            Order.created_at >= datetime.combine(start, time.min, UTC),
            Order.created_at < datetime.combine(end + timedelta(days=1), time.min, UTC),
        )
        .order_by(Order.created_at, OrderLine.id)
    )
    sales = pd.DataFrame(
        [
            (order_id, created.date(), sku, name, category, quantity, quantity * price)
            for order_id, created, sku, name, category, quantity, price in session.execute(query)
        ],
        columns=COLUMNS,
    ).astype({"order_id": "int64", "units": "int64", "revenue_cents": "int64"})
    sales["day"] = pd.to_datetime(sales["day"])
    return SalesReport(start, end, sales)
