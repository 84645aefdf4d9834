from fastapi import APIRouter, HTTPException, Response, status
from fastapi.responses import HTMLResponse

from webshop.api.dependencies import ReportDep, StorageDep
from webshop.export import export_report
from webshop.schemas import ExportOut, SalesReportOut
from webshop.storage import StorageError

router = APIRouter(prefix="/reports/sales", tags=["reports"])


@router.get("")
def sales_report(report: ReportDep) -> SalesReportOut:
    return report.to_schema()


@router.get(".csv")
def sales_report_csv(report: ReportDep) -> Response:
    return Response(report.to_csv(), media_type="text/csv")


@router.get(".html", response_class=HTMLResponse)
def sales_report_html(report: ReportDep) -> str:
    return report.to_html()


@router.post("/export", status_code=status.HTTP_201_CREATED)
def export_sales_report(report: ReportDep, storage: StorageDep) -> ExportOut:
    try:
        url = export_report(report, storage)
    except StorageError as error:
        raise HTTPException(status.HTTP_502_BAD_GATEWAY, str(error)) from error
    return ExportOut(url=url, rows=len(report.sales))
