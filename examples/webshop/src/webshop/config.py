"""Settings, read from ``WEBSHOP_*`` environment variables or a ``.env`` file."""

from pydantic import PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="WEBSHOP_", env_file=".env", extra="ignore")

    database_url: str = "sqlite:///webshop.db"
    report_bucket: str | None = None
    report_prefix: str = "reports"
    s3_endpoint_url: str | None = None
    page_size: PositiveInt = 50
