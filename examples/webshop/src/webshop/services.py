"""What the shop does, independent of HTTP. The caller commits."""

from collections import Counter
from collections.abc import Iterable

from sqlalchemy import select, update
from sqlalchemy.orm import Session, selectinload

from webshop.models import Order, OrderLine, OrderStatus, Product


class ShopError(Exception):
    """Base of everything a customer can do wrong."""


class NotFoundError(ShopError):
    pass


class ConflictError(ShopError):
    pass


def get_product(session: Session, sku: str) -> Product:
    product = session.scalar(select(Product).where(Product.sku == sku))
    if product is None:
        raise NotFoundError(f"no product {sku}")
    return product


def list_products(
    session: Session, *, category: str | None = None, limit: int = 50, offset: int = 0
) -> list[Product]:
    query = select(Product).order_by(Product.sku).limit(limit).offset(offset)
    if category is not None:
        query = query.where(Product.category == category.lower())
    return list(session.scalars(query))


def add_product(session: Session, product: Product) -> Product:
    if session.scalar(select(Product.id).where(Product.sku == product.sku)) is not None:
        raise ConflictError(f"product {product.sku} exists already")
    session.add(product)
    session.flush()
    return product


def get_order(session: Session, order_id: int) -> Order:
    order = session.get(
        Order, order_id, options=[selectinload(Order.lines).selectinload(OrderLine.product)]
    )
    if order is None:
        raise NotFoundError(f"no order {order_id}")
    return order


def list_orders(
    session: Session, *, customer: str | None = None, limit: int = 50, offset: int = 0
) -> list[Order]:
    query = (
        select(Order)
        .options(selectinload(Order.lines).selectinload(OrderLine.product))
        .order_by(Order.created_at.desc(), Order.id.desc())
        .limit(limit)
        .offset(offset)
    )
    if customer is not None:
        query = query.where(Order.customer == customer)
    return list(session.scalars(query))


def place_order(session: Session, customer: str, items: Iterable[tuple[str, int]]) -> Order:
    """Take ``items`` (SKU, quantity) out of stock; the same SKU twice becomes one line."""
    quantities: Counter[str] = Counter()
    for sku, quantity in items:
        quantities[sku] += quantity

    order = Order(customer=customer, status=OrderStatus.PLACED)
    for sku, quantity in sorted(quantities.items()):
        product = get_product(session, sku)
        # The condition is in the statement, so two orders cannot both take the last item.
        taken = session.scalar(
            update(Product)
            .where(Product.id == product.id, Product.stock >= quantity)
            .values(stock=Product.stock - quantity)
            .returning(Product.stock)
        )
        if taken is None:
            raise ConflictError(f"not enough of {sku} in stock: {product.stock} < {quantity}")
        order.lines.append(
            OrderLine(product=product, quantity=quantity, unit_price_cents=product.price_cents)
        )
    session.add(order)
    session.flush()
    return order


def cancel_order(session: Session, order_id: int) -> Order:
    """Put everything back into stock."""
    order = get_order(session, order_id)
    # As above: of two cancellations at once, one finds no such row.
    cancelled = session.scalar(
        update(Order)
        .where(Order.id == order_id, Order.status == OrderStatus.PLACED)
        .values(status=OrderStatus.CANCELLED)
        .returning(Order.id)
    )
    if cancelled is None:
        raise ConflictError(f"order {order_id} is cancelled already")
    for line in order.lines:
        session.execute(
            update(Product)
            .where(Product.id == line.product_id)
            .values(stock=Product.stock + line.quantity)
        )
    return order
