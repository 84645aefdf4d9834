from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.stub import Stubber
from sqlalchemy.orm import Session

from webshop.config import Settings
from webshop.export import export_report
from webshop.report import build_report
from webshop.storage import DirectoryStorage, S3Storage, StorageError, make_storage

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


@pytest.fixture
def s3() -> "Iterator[tuple[S3Client, Stubber]]":
    client = boto3.client("s3")
    with Stubber(client) as stubber:
        yield client, stubber
        stubber.assert_no_pending_responses()


def test_s3(s3: "tuple[S3Client, Stubber]") -> None:
    client, stubber = s3
    stubber.add_response(
        "put_object",
        {"ETag": '"0"'},
        {"Bucket": "shop", "Key": "a/b/x.csv", "Body": b"1,2\n", "ContentType": "text/csv"},
    )
    url = S3Storage(client, "shop", "/a/b/").put("x.csv", b"1,2\n", "text/csv")
    assert url == "s3://shop/a/b/x.csv"


def test_s3_without_prefix(s3: "tuple[S3Client, Stubber]") -> None:
    client, stubber = s3
    stubber.add_response("put_object", {})
    assert S3Storage(client, "shop").put("x.csv", b"", "text/csv") == "s3://shop/x.csv"


def test_s3_refuses(s3: "tuple[S3Client, Stubber]") -> None:
    client, stubber = s3
    stubber.add_client_error("put_object", "AccessDenied", "no", http_status_code=403)
    with pytest.raises(StorageError, match=r"cannot write s3://shop/x\.csv: .*AccessDenied"):
        S3Storage(client, "shop").put("x.csv", b"", "text/csv")


def test_directory(tmp_path: Path) -> None:
    url = DirectoryStorage(tmp_path / "new").put("x.csv", b"1,2\n", "text/csv")
    assert url == (tmp_path / "new" / "x.csv").resolve().as_uri()
    assert (tmp_path / "new" / "x.csv").read_bytes() == b"1,2\n"


def test_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        DirectoryStorage(tmp_path / "file").put("x.csv", b"", "text/csv")


def test_storage_of_the_settings() -> None:
    assert make_storage(Settings()) is None
    storage = make_storage(
        Settings(report_bucket="shop", s3_endpoint_url="http://storage.example:9000")
    )
    assert isinstance(storage, S3Storage)


def test_export_of_a_report(session: Session, sales: None, s3: "tuple[S3Client, Stubber]") -> None:
    client, stubber = s3
    report = build_report(session, date(2025, 1, 1), date(2025, 1, 31))
    stubber.add_response(
        "put_object",
        {},
        {
            "Bucket": "shop",
            "Key": "reports/sales-2025-01-01-2025-01-31.csv",
            "Body": report.to_csv().encode(),
            "ContentType": "text/csv; charset=utf-8",
        },
    )
    url = export_report(report, S3Storage(client, "shop", "reports"))
    assert url == "s3://shop/reports/sales-2025-01-01-2025-01-31.csv"
