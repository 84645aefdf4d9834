from datetime import date

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from webshop.models import Product
from webshop.report import COLUMNS, SalesReport, build_report

JANUARY = (date(2025, 1, 1), date(2025, 1, 31))


@pytest.fixture
def january(session: Session, sales: None) -> SalesReport:
    return build_report(session, *JANUARY)


def test_totals(january: SalesReport) -> None:
    assert january.orders == 2
    assert january.units == 5
    assert january.revenue_cents == 2 * 900 + 1950 + 800 + 3500


def test_by_category(january: SalesReport) -> None:
    table = january.by_category()
    assert table["category"].tolist() == ["kitchen", "clothes"]
    assert table["orders"].tolist() == [2, 1]
    assert table["units"].tolist() == [4, 1]
    assert table["revenue_cents"].tolist() == [6100, 1950]
    assert table["share"].tolist() == [0.7578, 0.2422]


def test_by_day_has_every_day(session: Session, sales: None) -> None:
    table = build_report(session, date(2025, 1, 1), date(2025, 1, 4)).by_day()
    assert [day.date().day for day in table["day"]] == [1, 2, 3, 4]
    assert table["orders"].tolist() == [1, 0, 1, 0]
    assert table["revenue_cents"].tolist() == [3750, 0, 4300, 0]


def test_top_products(january: SalesReport) -> None:
    assert january.top_products()["sku"].tolist() == ["PAN-1", "MUG-1", "TEE-1"]
    assert january.top_products(1)["revenue_cents"].tolist() == [3500]


@pytest.mark.parametrize(
    ("start", "end", "orders"),
    [
        (date(2025, 1, 1), date(2025, 1, 1), 1),
        (date(2025, 1, 2), date(2025, 1, 2), 0),
        (date(2025, 1, 2), date(2025, 1, 3), 1),
        (date(2025, 1, 31), date(2025, 2, 1), 1),
        (date(2024, 12, 31), date(2025, 2, 1), 3),
    ],
)
def test_both_ends_are_included(
    session: Session, sales: None, start: date, end: date, orders: int
) -> None:
    assert build_report(session, start, end).orders == orders


def test_nothing_sold(session: Session) -> None:
    report = build_report(session, date(2025, 1, 1), date(2025, 1, 2))
    schema = report.to_schema()
    assert (schema.orders, schema.units, schema.revenue_cents) == (0, 0, 0)
    assert schema.by_category == []
    assert schema.top_products == []
    assert [day.revenue_cents for day in schema.by_day] == [0, 0]
    assert report.to_csv() == ",".join(COLUMNS) + "\n"
    assert "Nothing was sold." in report.to_html()


def test_end_before_start(session: Session) -> None:
    with pytest.raises(ValueError, match="before it starts"):
        build_report(session, date(2025, 1, 2), date(2025, 1, 1))


def test_csv(january: SalesReport) -> None:
    assert january.to_csv().splitlines() == [
        "order_id,day,sku,name,category,units,revenue_cents",
        "1,2025-01-01,MUG-1,Mug,kitchen,2,1800",
        "1,2025-01-01,TEE-1,T-shirt,clothes,1,1950",
        "2,2025-01-03,MUG-1,Mug,kitchen,1,800",
        "2,2025-01-03,PAN-1,Pan,kitchen,1,3500",
    ]


def test_html(session: Session, sales: None) -> None:
    session.scalars(select(Product).where(Product.sku == "PAN-1")).one().name = "Pan <28 cm>"
    page = build_report(session, *JANUARY).to_html()
    assert "2 orders, 5 units, revenue 80.50" in page
    assert "Pan &lt;28 cm&gt; (PAN-1): 1 for 35.00" in page
    assert "75.8 %" in page
