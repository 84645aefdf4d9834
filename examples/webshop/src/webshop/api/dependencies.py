from collections.abc import Iterator
from datetime import date
from typing import Annotated

from fastapi import Depends, HTTPException, Query, Request, status
from sqlalchemy.orm import Session

from webshop.config import Settings
from webshop.report import SalesReport, build_report
from webshop.storage import Storage


def get_session(request: Request) -> Iterator[Session]:
    """One transaction for each request; committed unless something is raised."""
    with request.app.state.session_factory.begin() as session:
        yield session


# "function": commit before the response is sent, so that a failed commit is not a 200.
SessionDep = Annotated[Session, Depends(get_session, scope="function")]


def get_settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


SettingsDep = Annotated[Settings, Depends(get_settings)]


def get_storage(request: Request) -> Storage:
    storage: Storage | None = request.app.state.storage
    if storage is None:
        raise HTTPException(status.HTTP_503_SERVICE_UNAVAILABLE, "no report bucket is configured")
    return storage


StorageDep = Annotated[Storage, Depends(get_storage)]


class Page:
    def __init__(
        self,
        settings: SettingsDep,
        limit: Annotated[int | None, Query(ge=1, le=500)] = None,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> None:
        self.limit = settings.page_size if limit is None else limit
        self.offset = offset


PageDep = Annotated[Page, Depends()]


def get_report(session: SessionDep, start: date, end: date) -> SalesReport:
    if end < start or (end - start).days > 366:
        raise HTTPException(
            status.HTTP_400_BAD_REQUEST, "end must be on or after start, at most a year later"
        )
    return build_report(session, start, end)


ReportDep = Annotated[SalesReport, Depends(get_report)]
