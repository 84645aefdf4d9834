from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from webshop.cli import app, probe
from webshop.config import Settings

runner = CliRunner()


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "shop.db"
    monkeypatch.setenv("WEBSHOP_DATABASE_URL", f"sqlite:///{path}")
    return path


def test_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBSHOP_REPORT_BUCKET", "shop")
    monkeypatch.setenv("WEBSHOP_PAGE_SIZE", "7")
    settings = Settings()
    assert (settings.report_bucket, settings.page_size) == ("shop", 7)


def test_migrate_and_export(database: Path, tmp_path: Path) -> None:
    assert runner.invoke(app, ["migrate"]).exit_code == 0
    assert database.exists()

    out = tmp_path / "out"
    result = runner.invoke(app, ["export", "2025-01-01", "2025-01-31", "--directory", str(out)])
    assert result.exit_code == 0
    report = out / "sales-2025-01-01-2025-01-31.csv"
    assert result.output.strip() == report.resolve().as_uri()
    assert report.read_text().startswith("order_id,day,")


@pytest.mark.usefixtures("database")
def test_export_of_a_bad_span() -> None:
    result = runner.invoke(app, ["export", "2025-01-31", "2025-01-01"])
    assert result.exit_code == 1
    assert "before it starts" in result.output


def test_probe() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/health"
        return httpx.Response(200, json={"status": "ok", "version": "1.2.3"})

    with httpx.Client(
        base_url="http://shop.example", transport=httpx.MockTransport(answer)
    ) as client:
        assert probe(client) == "1.2.3"


def test_probe_of_a_sick_service() -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(500))
    with (
        httpx.Client(base_url="http://shop.example", transport=transport) as client,
        pytest.raises(httpx.HTTPStatusError),
    ):
        probe(client)
