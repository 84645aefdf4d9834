from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from webshop.api import create_app
from webshop.config import Settings
from webshop.database import make_engine, make_session_factory
from webshop.models import Base, Order, OrderLine, OrderStatus, Product


class MemoryStorage:
    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, str]] = {}

    def put(self, name: str, data: bytes, content_type: str) -> str:
        self.objects[name] = (data, content_type)
        return f"memory:{name}"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the developer's settings nor any AWS account must matter."""
    for field in Settings.model_fields:
        monkeypatch.delenv(f"WEBSHOP_{field.upper()}", raising=False)
    monkeypatch.setitem(Settings.model_config, "env_file", None)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_PROFILE", raising=False)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = make_engine("sqlite://")
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with make_session_factory(engine)() as session:
        yield session


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def client(engine: Engine, storage: MemoryStorage) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(), engine=engine, storage=storage)) as client:
        yield client


@pytest.fixture
def products(session: Session) -> dict[str, Product]:
    products = [
        Product(sku="MUG-1", name="Mug", category="kitchen", price_cents=900, stock=10),
        Product(sku="PAN-1", name="Pan", category="kitchen", price_cents=3500, stock=3),
        Product(sku="TEE-1", name="T-shirt", category="clothes", price_cents=1950, stock=5),
    ]
    session.add_all(products)
    session.commit()
    return {product.sku: product for product in products}


@pytest.fixture
def sales(session: Session, products: dict[str, Product]) -> None:
    """Three orders in January 2025, one of them cancelled, and one in February."""

    def order(
        when: datetime, *lines: tuple[str, int, int], status: OrderStatus = OrderStatus.PLACED
    ) -> None:
        session.add(
            Order(
                customer="ada",
                created_at=when,
                status=status,
                lines=[
                    OrderLine(product=products[sku], quantity=quantity, unit_price_cents=price)
                    for sku, quantity, price in lines
                ],
            )
        )

    order(datetime(2025, 1, 1, 0, 0, tzinfo=UTC), ("MUG-1", 2, 900), ("TEE-1", 1, 1950))
    order(datetime(2025, 1, 3, 23, 59, 59, tzinfo=UTC), ("MUG-1", 1, 800), ("PAN-1", 1, 3500))
    order(datetime(2025, 1, 2, 12, 0, tzinfo=UTC), ("PAN-1", 2, 3500), status=OrderStatus.CANCELLED)
    order(datetime(2025, 2, 1, 0, 0, tzinfo=UTC), ("TEE-1", 4, 1950))
    session.commit()
