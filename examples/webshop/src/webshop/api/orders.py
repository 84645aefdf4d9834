from fastapi import APIRouter, status

from webshop import services
from webshop.api.dependencies import PageDep, SessionDep
from webshop.models import Order
from webshop.schemas import OrderIn, OrderOut

router = APIRouter(prefix="/orders", tags=["orders"])


@router.get("", response_model=list[OrderOut])
def list_orders(session: SessionDep, page: PageDep, customer: str | None = None) -> list[Order]:
    return services.list_orders(session, customer=customer, limit=page.limit, offset=page.offset)


@router.post("", response_model=OrderOut, status_code=status.HTTP_201_CREATED)
def place_order(session: SessionDep, order: OrderIn) -> Order:
    items = [(line.sku, line.quantity) for line in order.lines]
    return services.place_order(session, order.customer, items)


@router.get("/{order_id}", response_model=OrderOut)
def get_order(session: SessionDep, order_id: int) -> Order:
    return services.get_order(session, order_id)


@router.post("/{order_id}/cancel", response_model=OrderOut)
def cancel_order(session: SessionDep, order_id: int) -> Order:
    return services.cancel_order(session, order_id)
