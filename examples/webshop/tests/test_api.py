from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from conftest import MemoryStorage
from webshop.api import create_app
from webshop.config import Settings
from webshop.database import migrate
from webshop.storage import StorageError

MUG = {"sku": "MUG-9", "name": "Mug", "category": "Kitchen", "price_cents": 900, "stock": 5}
JANUARY = {"start": "2025-01-01", "end": "2025-01-31"}


class BrokenStorage:
    def put(self, name: str, data: bytes, content_type: str) -> str:
        raise StorageError(f"cannot write {name}")


@pytest.fixture
def bare_client(engine: Engine) -> Iterator[TestClient]:
    """The shop without a bucket."""
    with TestClient(create_app(Settings(), engine=engine)) as client:
        yield client


def test_health(client: TestClient) -> None:
    assert client.get("/health").json()["status"] == "ok"


def test_product_life(client: TestClient) -> None:
    response = client.post("/products", json=MUG)
    assert response.status_code == 201
    assert response.json() == MUG | {"category": "kitchen"}

    response = client.patch("/products/MUG-9", json={"stock": 7})
    assert response.status_code == 200
    assert client.get("/products/MUG-9").json() == MUG | {"category": "kitchen", "stock": 7}

    assert client.post("/products", json=MUG).status_code == 409
    assert len(client.get("/products").json()) == 1


@pytest.mark.parametrize(
    "change",
    [{"sku": "no spaces"}, {"price_cents": -1}, {"name": "  "}, {"stock": 1.5}],
    ids=lambda change: next(iter(change)),
)
def test_bad_product(client: TestClient, change: dict[str, Any]) -> None:
    response = client.post("/products", json=MUG | change)
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["body", *change]
    assert client.get("/products").json() == []


@pytest.mark.usefixtures("products")
def test_product_pages(client: TestClient) -> None:
    def skus(**query: str | int) -> list[str]:
        return [product["sku"] for product in client.get("/products", params=query).json()]

    assert skus() == ["MUG-1", "PAN-1", "TEE-1"]
    assert skus(category="kitchen", offset=1) == ["PAN-1"]
    assert skus(limit=2) == ["MUG-1", "PAN-1"]
    assert client.get("/products", params={"limit": 0}).status_code == 422


@pytest.mark.usefixtures("products")
def test_page_size_is_a_setting(engine: Engine) -> None:
    with TestClient(create_app(Settings(page_size=1), engine=engine)) as client:
        assert len(client.get("/products").json()) == 1


@pytest.mark.usefixtures("products")
def test_order_life(client: TestClient) -> None:
    lines = [{"sku": "MUG-1", "quantity": 2}, {"sku": "PAN-1"}]
    before = datetime.now(UTC)
    response = client.post("/orders", json={"customer": "ada", "lines": lines})
    assert response.status_code == 201
    order = response.json()
    assert order["status"] == "placed"
    assert order["total_cents"] == 5300
    assert before <= datetime.fromisoformat(order["created_at"]) <= datetime.now(UTC)
    assert client.get(f"/orders/{order['id']}").json() == order
    assert client.get("/products/MUG-1").json()["stock"] == 8

    response = client.post(f"/orders/{order['id']}/cancel")
    assert response.status_code == 200
    assert response.json() == order | {"status": "cancelled"}
    assert client.get("/products/MUG-1").json()["stock"] == 10
    assert client.post(f"/orders/{order['id']}/cancel").status_code == 409


@pytest.mark.usefixtures("products")
def test_too_big_an_order_changes_nothing(client: TestClient) -> None:
    lines = [{"sku": "MUG-1", "quantity": 2}, {"sku": "PAN-1", "quantity": 4}]
    response = client.post("/orders", json={"customer": "ada", "lines": lines})
    assert response.status_code == 409
    assert response.json() == {"detail": "not enough of PAN-1 in stock: 3 < 4"}
    assert client.get("/products/MUG-1").json()["stock"] == 10
    assert client.get("/orders").json() == []


@pytest.mark.parametrize("lines", [[], [{"sku": "MUG-1", "quantity": 0}]])
def test_bad_order(client: TestClient, lines: list[dict[str, Any]]) -> None:
    response = client.post("/orders", json={"customer": "ada", "lines": lines})
    assert response.status_code == 422


@pytest.mark.usefixtures("products")
def test_orders_of_a_customer(client: TestClient) -> None:
    for customer in ("ada", "bob", "ada"):
        body = {"customer": customer, "lines": [{"sku": "MUG-1"}]}
        assert client.post("/orders", json=body).status_code == 201
    orders = client.get("/orders", params={"customer": "ada"}).json()
    assert [order["id"] for order in orders] == [3, 1]


@pytest.mark.parametrize("path", ["/products/NONE-1", "/orders/1"])
def test_not_found(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert response.json()["detail"].startswith("no ")


@pytest.mark.usefixtures("sales")
def test_report(client: TestClient) -> None:
    report = client.get("/reports/sales", params=JANUARY).json()
    assert (report["orders"], report["units"], report["revenue_cents"]) == (2, 5, 8050)
    assert report["by_category"][0] == {
        "category": "kitchen",
        "orders": 2,
        "units": 4,
        "revenue_cents": 6100,
        "share": 0.7578,
    }
    assert len(report["by_day"]) == 31
    assert report["by_day"][0] == {"day": "2025-01-01", "orders": 1, "revenue_cents": 3750}


@pytest.mark.usefixtures("sales")
def test_report_formats(client: TestClient) -> None:
    csv = client.get("/reports/sales.csv", params=JANUARY)
    assert csv.headers["content-type"].startswith("text/csv")
    assert len(csv.text.splitlines()) == 5

    page = client.get("/reports/sales.html", params=JANUARY)
    assert page.headers["content-type"].startswith("text/html")
    assert "<h1>Sales 2025-01-01 to 2025-01-31</h1>" in page.text


@pytest.mark.parametrize("end", ["2024-12-31", "2027-01-01"])
def test_bad_span(client: TestClient, end: str) -> None:
    response = client.get("/reports/sales", params={"start": "2025-01-01", "end": end})
    assert response.status_code == 400


@pytest.mark.usefixtures("sales")
def test_export(client: TestClient, storage: MemoryStorage) -> None:
    response = client.post("/reports/sales/export", params=JANUARY)
    assert response.status_code == 201
    assert response.json() == {"url": "memory:sales-2025-01-01-2025-01-31.csv", "rows": 4}
    data, content_type = storage.objects["sales-2025-01-01-2025-01-31.csv"]
    assert data.decode() == client.get("/reports/sales.csv", params=JANUARY).text
    assert content_type == "text/csv; charset=utf-8"


def test_export_without_a_bucket(bare_client: TestClient) -> None:
    assert bare_client.post("/reports/sales/export", params=JANUARY).status_code == 503


def test_export_that_fails(engine: Engine) -> None:
    with TestClient(create_app(Settings(), engine=engine, storage=BrokenStorage())) as client:
        response = client.post("/reports/sales/export", params=JANUARY)
    assert response.status_code == 502
    assert response.json()["detail"].startswith("cannot write sales-")


def test_engine_of_the_settings() -> None:
    with TestClient(create_app(Settings(database_url="sqlite://"))) as client:
        migrate(client.app.state.session_factory.kw["bind"])  # type: ignore[attr-defined]
        assert client.post("/products", json=MUG).status_code == 201
        assert client.get("/products/MUG-9").status_code == 200


def test_openapi(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/products", "/orders/{order_id}/cancel", "/reports/sales/export"} <= paths.keys()
