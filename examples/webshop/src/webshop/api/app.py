from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, status
from fastapi.responses import JSONResponse
from sqlalchemy import Engine

from webshop import __version__
from webshop.api import orders, products, reports
from webshop.config import Settings
from webshop.database import make_engine, make_session_factory
from webshop.services import ConflictError, NotFoundError
from webshop.storage import Storage, make_storage


def not_found(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status.HTTP_404_NOT_FOUND)


def conflict(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status.HTTP_409_CONFLICT)


def create_app(
    settings: Settings | None = None,
    *,
    engine: Engine | None = None,
    storage: Storage | None = None,
) -> FastAPI:
    """The application; engine and storage are made from the settings unless given."""
    settings = settings or Settings()
    database = engine or make_engine(settings.database_url)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        if engine is None:
            database.dispose()

    app = FastAPI(title="webshop", version=__version__, lifespan=lifespan)
    app.state.settings = settings
    app.state.session_factory = make_session_factory(database)
    app.state.storage = storage or make_storage(settings)

    app.add_exception_handler(NotFoundError, not_found)
    app.add_exception_handler(ConflictError, conflict)
    app.include_router(products.router)
    app.include_router(orders.router)
    app.include_router(reports.router)

    @app.get("/health", tags=["health"])
    def health() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    return app
