"""Put a sales report, as CSV, into a storage."""

from webshop.report import SalesReport
from webshop.storage import Storage


def export_report(report: SalesReport, storage: Storage) -> str:
    name = f"sales-{report.start}-{report.end}.csv"
    return storage.put(name, report.to_csv().encode(), "text/csv; charset=utf-8")
