from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm import Session

from webshop.models import Order, OrderLine, Product


def test_datetimes_come_back_in_utc(session: Session) -> None:
    moment = datetime(2025, 6, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    session.add(Order(customer="ada", created_at=moment))
    session.commit()
    session.expire_all()

    stored = session.scalars(select(Order)).one().created_at
    assert stored == moment
    assert stored.tzinfo is UTC
    assert stored.hour == 23


def test_naive_datetimes_are_refused(session: Session) -> None:
    session.add(Order(customer="ada", created_at=datetime(2025, 6, 1)))  # noqa: DTZ001
    with pytest.raises(StatementError, match="without a time zone"):
        session.flush()


def test_order_total(products: dict[str, Product]) -> None:
    order = Order(
        customer="ada",
        lines=[
            OrderLine(product=products["MUG-1"], quantity=2, unit_price_cents=900),
            OrderLine(product=products["PAN-1"], quantity=1, unit_price_cents=3000),
        ],
    )
    assert order.total_cents == 4800


@pytest.mark.parametrize(
    "product",
    [
        Product(sku="MUG-1", name="Another", category="kitchen", price_cents=1, stock=1),
        Product(sku="BAD-1", name="Bad", category="kitchen", price_cents=-1, stock=1),
        Product(sku="BAD-2", name="Bad", category="kitchen", price_cents=1, stock=-1),
    ],
    ids=["same sku", "negative price", "negative stock"],
)
@pytest.mark.usefixtures("products")
def test_product_constraints(session: Session, product: Product) -> None:
    session.add(product)
    with pytest.raises(IntegrityError):
        session.flush()


def test_foreign_keys_are_enforced(session: Session, products: dict[str, Product]) -> None:
    session.add(
        OrderLine(order_id=99, product_id=products["MUG-1"].id, quantity=1, unit_price_cents=900)
    )
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        session.flush()
