import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from webshop import services
from webshop.models import Order, OrderStatus, Product


def test_order_takes_from_stock(session: Session, products: dict[str, Product]) -> None:
    order = services.place_order(session, "ada", [("PAN-1", 1), ("MUG-1", 4)])
    session.commit()

    assert order.total_cents == 4 * 900 + 3500
    assert services.get_product(session, "MUG-1").stock == 6
    assert services.get_product(session, "PAN-1").stock == 2
    assert products["TEE-1"].stock == 5


def test_same_sku_twice_is_one_line(session: Session, products: dict[str, Product]) -> None:
    order = services.place_order(session, "ada", [("MUG-1", 1), ("MUG-1", 2)])
    assert [(line.sku, line.quantity) for line in order.lines] == [("MUG-1", 3)]
    assert products["MUG-1"].stock == 7


def test_last_item_can_be_sold(session: Session, products: dict[str, Product]) -> None:
    services.place_order(session, "ada", [("PAN-1", 3)])
    assert products["PAN-1"].stock == 0


@pytest.mark.parametrize(
    ("items", "error"),
    [
        ([("MUG-1", 1), ("PAN-1", 4)], services.ConflictError),
        ([("PAN-1", 2), ("PAN-1", 2)], services.ConflictError),
        ([("MUG-1", 1), ("NONE-1", 1)], services.NotFoundError),
    ],
)
@pytest.mark.usefixtures("products")
def test_failed_order_leaves_nothing(
    session: Session, items: list[tuple[str, int]], error: type[services.ShopError]
) -> None:
    with pytest.raises(error):
        services.place_order(session, "ada", items)
    session.rollback()

    assert services.get_product(session, "MUG-1").stock == 10
    assert services.get_product(session, "PAN-1").stock == 3
    assert session.scalar(select(func.count()).select_from(Order)) == 0


def test_price_of_an_order_is_fixed(session: Session, products: dict[str, Product]) -> None:
    order = services.place_order(session, "ada", [("TEE-1", 2)])
    session.commit()
    products["TEE-1"].price_cents = 1
    session.commit()
    session.expire_all()
    assert services.get_order(session, order.id).total_cents == 3900


def test_cancelling_puts_back_once(session: Session, products: dict[str, Product]) -> None:
    order = services.place_order(session, "ada", [("MUG-1", 4), ("TEE-1", 1)])
    session.commit()

    services.cancel_order(session, order.id)
    session.commit()
    assert order.status == OrderStatus.CANCELLED
    assert (products["MUG-1"].stock, products["TEE-1"].stock) == (10, 5)

    with pytest.raises(services.ConflictError, match="cancelled already"):
        services.cancel_order(session, order.id)
    assert products["MUG-1"].stock == 10


@pytest.mark.usefixtures("products")
def test_listing_products(session: Session) -> None:
    def skus(**options: object) -> list[str]:
        return [p.sku for p in services.list_products(session, **options)]  # type: ignore[arg-type]

    assert skus() == ["MUG-1", "PAN-1", "TEE-1"]
    assert skus(category="Kitchen") == ["MUG-1", "PAN-1"]
    assert skus(limit=1, offset=1) == ["PAN-1"]
    assert skus(category="garden") == []
