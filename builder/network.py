"""The HTTP session that registries and package indexes are asked through."""

from __future__ import annotations

import os
import re
from typing import Final

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from builder import __version__
from builder.errors import UsageError

TIMEOUT: Final = (10.0, 60.0)  # seconds to connect, seconds between two bytes

_RETRIES = Retry(
    total=4, other=0, backoff_factor=0.5, backoff_max=20, status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=("GET", "HEAD"), respect_retry_after_header=True, raise_on_status=False,
)  # fmt: skip


_CONNECTION = re.compile(r"^(<.*?>|HTTPS?Connection\(.*?\)|HTTPS?ConnectionPool\(.*?\)): ")


class _Session(requests.Session):
    """A session whose every request has a time limit, and trusts what the session does."""

    def request(self, *args: object, **kwargs: object) -> requests.Response:
        kwargs.setdefault("timeout", TIMEOUT)
        # Unless it is said here, requests lets REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE win over the session's own.
        kwargs.setdefault("verify", self.verify)
        return super().request(*args, **kwargs)  # type: ignore[arg-type]


def session(retries: Retry | int = _RETRIES) -> requests.Session:
    """Return a session that trusts SSL_CERT_FILE where set, retries what may pass, and never waits for ever.

    Raises UsageError where SSL_CERT_FILE cannot be read.
    """
    made = _Session()
    made.headers["User-Agent"] = f"builder/{__version__}"
    bundle = os.environ.get("SSL_CERT_FILE")
    if bundle:
        if not os.access(bundle, os.R_OK):
            raise UsageError(f"SSL_CERT_FILE names {bundle}, which cannot be read", hint="mend or unset SSL_CERT_FILE")
        made.verify = bundle
    for scheme in ("https://", "http://"):
        made.mount(scheme, HTTPAdapter(max_retries=retries, pool_maxsize=16))
    return made


def reason(error: requests.RequestException) -> str:
    """Return what went wrong with a request, without the libraries' wrapping."""
    cause: BaseException = error
    while cause.args and isinstance(cause.args[0], BaseException):
        cause = cause.args[0]
    inner = getattr(cause, "reason", None)
    text = str(inner if isinstance(inner, BaseException) else cause)
    return _CONNECTION.sub("", text)
