"""What goes over the wire."""

from datetime import date, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, StringConstraints

from webshop.models import OrderStatus

Sku = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9][A-Z0-9-]{1,31}$")]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Category = Annotated[
    str, StringConstraints(strip_whitespace=True, to_lower=True, min_length=1, max_length=50)
]


class ProductIn(BaseModel):
    sku: Sku
    name: Text
    category: Category
    price_cents: NonNegativeInt
    stock: NonNegativeInt = 0


class ProductUpdate(BaseModel):
    name: Text | None = None
    category: Category | None = None
    price_cents: NonNegativeInt | None = None
    stock: NonNegativeInt | None = None


class ProductOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    sku: str
    name: str
    category: str
    price_cents: int
    stock: int


class OrderLineIn(BaseModel):
    sku: Sku
    quantity: PositiveInt = 1


class OrderIn(BaseModel):
    customer: Text
    lines: list[OrderLineIn] = Field(min_length=1, max_length=100)


class OrderLineOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    sku: str
    quantity: int
    unit_price_cents: int


class OrderOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    customer: str
    status: OrderStatus
    created_at: datetime
    total_cents: int
    lines: list[OrderLineOut]


class CategorySales(BaseModel):
    category: str
    orders: int
    units: int
    revenue_cents: int
    share: float


class DailySales(BaseModel):
    day: date
    orders: int
    revenue_cents: int


class ProductSales(BaseModel):
    sku: str
    name: str
    units: int
    revenue_cents: int


class SalesReportOut(BaseModel):
    start: date
    end: date
    orders: int
    units: int
    revenue_cents: int
    by_category: list[CategorySales]
    by_day: list[DailySales]
    top_products: list[ProductSales]


class ExportOut(BaseModel):
    url: str
    rows: int
