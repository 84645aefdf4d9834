"""The ``webshop`` command."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import httpx
import typer
import uvicorn

from webshop.config import Settings
from webshop.database import engine_for, make_session_factory, migrate
from webshop.export import export_report
from webshop.report import build_report
from webshop.storage import DirectoryStorage, StorageError, make_storage

app = typer.Typer(no_args_is_help=True, help="A small web shop.")

Day = Annotated[datetime, typer.Argument(formats=["%Y-%m-%d"])]


@app.command("migrate")
def migrate_command() -> None:
    """Bring the database to the newest schema."""
    with engine_for(Settings().database_url) as engine:
        migrate(engine)
    typer.echo("database is up to date")


@app.command()
def serve(host: str = "127.0.0.1", port: int = 8000, reload: bool = False) -> None:
    """Run the web service."""
    uvicorn.run("webshop.api:create_app", factory=True, host=host, port=port, reload=reload)


@app.command()
def export(start: Day, end: Day, directory: Path = Path("reports")) -> None:
    """Export the sales report to the bucket, or else to a directory."""
    settings = Settings()
    storage = make_storage(settings) or DirectoryStorage(directory)
    with engine_for(settings.database_url) as engine, make_session_factory(engine)() as session:
        try:
            report = build_report(session, start.date(), end.date())
            typer.echo(export_report(report, storage))
        except (StorageError, ValueError) as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from error


def probe(client: httpx.Client) -> str:
    """Version of the running service; raises ``httpx.HTTPError`` if it is not well."""
    response = client.get("/health")
    response.raise_for_status()
    return str(response.json()["version"])


@app.command()
def health(url: str = "http://127.0.0.1:8000") -> None:
    """Ask a running service whether it is well (for a container's health check)."""
    try:
        with httpx.Client(base_url=url, timeout=5) as client:
            typer.echo(f"webshop {probe(client)} is up")
    except httpx.HTTPError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
