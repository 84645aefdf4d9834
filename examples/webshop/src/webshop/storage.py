"""Where exported reports go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import boto3
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

    from webshop.config import Settings


class StorageError(Exception):
    """The export could not be written."""


class Storage(Protocol):
    def put(self, name: str, data: bytes, content_type: str) -> str:
        """Write ``data`` and return the URL it is found at."""
        ...


class S3Storage:
    def __init__(self, client: S3Client, bucket: str, prefix: str = "") -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix.strip("/")

    def put(self, name: str, data: bytes, content_type: str) -> str:
        key = f"{self._prefix}/{name}" if self._prefix else name
        try:
            self._client.put_object(
                Bucket=self._bucket, Key=key, Body=data, ContentType=content_type
            )
        except (BotoCoreError, ClientError) as error:
            raise StorageError(f"cannot write s3://{self._bucket}/{key}: {error}") from error
        return f"s3://{self._bucket}/{key}"


class DirectoryStorage:
    """For development, and for the command line without a bucket."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, name: str, data: bytes, content_type: str) -> str:
        path = self._directory.resolve() / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error}") from error
        return path.as_uri()


def make_storage(settings: Settings) -> Storage | None:
    """The S3 bucket of the settings, if they name one."""
    if settings.report_bucket is None:
        return None
    client = boto3.client("s3", endpoint_url=settings.s3_endpoint_url)
    return S3Storage(client, settings.report_bucket, settings.report_prefix)
