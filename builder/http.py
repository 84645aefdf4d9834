"""The HTTP session that registries and package indexes are asked through, one by one or several at a time.

Ctrl-C ends all of it at once, also where a server took a request and never answers.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final, TypeVar

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

import builder
from builder.errors import InterruptedRun, UsageError

TIMEOUT: Final = (10.0, 60.0)  # seconds to connect, seconds between two bytes
_ATTENTION: Final = 0.2  # seconds between two looks at whether the run was stopped
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_RETRIES = Retry(
    total=4, other=0, backoff_factor=0.5, backoff_max=20, status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=("GET", "HEAD"), respect_retry_after_header=True, raise_on_status=False,
)  # fmt: skip
_CONNECTION = re.compile(r"^(<.*?>|HTTPS?Connection\(.*?\)|HTTPS?ConnectionPool\(.*?\)): ")


class _Session(requests.Session):
    """A session whose every request has a time limit, ends with the run, and trusts what the session does."""

    stopped: threading.Event

    def request(self, *args: object, **kwargs: object) -> requests.Response:
        kwargs.setdefault("timeout", TIMEOUT)
        # Unless it is said here, requests lets REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE win over the session's own.
        kwargs.setdefault("verify", self.verify)
        ask = super().request
        return _unless(self.stopped, lambda: ask(*args, **kwargs))  # type: ignore[arg-type]


def _unless(stopped: threading.Event, call: Callable[[], _Result]) -> _Result:
    """Call it and return what it returns, or raise InterruptedRun as soon as the run is stopped.

    A thread of its own waits, for nothing can tell a socket that is read from elsewhere to stop; it ends with the run.
    """
    future: Future[_Result] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # it is raised where the answer is waited for
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    while not wait([future], timeout=_ATTENTION).done:
        if stopped.is_set():
            raise InterruptedRun("interrupted")
    return future.result()


def map_concurrently(
    function: Callable[[_Item], _Result], items: Iterable[_Item], stopped: threading.Event, *, lanes: int = 8
) -> list[_Result]:
    """Call the function for each item, several at a time, and return what it returns in their order.

    Ctrl-C sets `stopped`, by which those that wait for an answer end.
    """
    with ThreadPoolExecutor(lanes) as pool:
        try:
            return list(pool.map(function, items))
        except KeyboardInterrupt:
            stopped.set()
            raise


def open_session(retries: Retry | int = _RETRIES, *, stopped: threading.Event) -> requests.Session:
    """Return a session that trusts SSL_CERT_FILE where set, retries what may pass, and never waits for ever.

    Raises UsageError where SSL_CERT_FILE cannot be read.
    """
    made = _Session()
    made.stopped = stopped
    made.headers["User-Agent"] = f"builder/{builder.__version__}"
    bundle = os.environ.get("SSL_CERT_FILE")
    if bundle:
        if not os.access(bundle, os.R_OK):
            raise UsageError(f"SSL_CERT_FILE names {bundle}, which cannot be read", hint="mend or unset SSL_CERT_FILE")
        made.verify = bundle
    for scheme in ("https://", "http://"):
        made.mount(scheme, HTTPAdapter(max_retries=retries, pool_maxsize=16))
    return made


def failure_reason(error: requests.RequestException) -> str:
    """Return what went wrong with a request, without the libraries' wrapping."""
    cause: BaseException = error
    while cause.args and isinstance(cause.args[0], BaseException):
        cause = cause.args[0]
    inner = getattr(cause, "reason", None)
    text = str(inner if isinstance(inner, BaseException) else cause)
    return _CONNECTION.sub("", text)
