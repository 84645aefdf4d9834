"""HTTP sessions for registries and package indexes, and concurrent requests through them.

Ctrl-C ends every request at once, even if a server accepted it and never answers.
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

TIMEOUT: Final = (10.0, 60.0)  # seconds to connect, and seconds between two bytes
_POLL_PERIOD: Final = 0.2  # seconds between two checks for an interruption
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_RETRIES = Retry(
    total=4, other=0, backoff_factor=0.5, backoff_max=20, status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=("GET", "HEAD"), respect_retry_after_header=True, raise_on_status=False,
)  # fmt: skip
_CONNECTION = re.compile(r"^(<.*?>|HTTPS?Connection\(.*?\)|HTTPS?ConnectionPool\(.*?\)): ")


class _Session(requests.Session):
    """A session whose requests have a time limit, end with the run, and trust the session's own CA bundle."""

    stopped: threading.Event

    def request(self, *args: object, **kwargs: object) -> requests.Response:
        kwargs.setdefault("timeout", TIMEOUT)
        # Otherwise requests prefers REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE to the session's own bundle.
        kwargs.setdefault("verify", self.verify)
        send = super().request
        return _call_until_stopped(self.stopped, lambda: send(*args, **kwargs))  # type: ignore[arg-type]


def _call_until_stopped(stopped: threading.Event, call: Callable[[], _Result]) -> _Result:
    """Call the function and return its result; raise InterruptedRun as soon as the run is stopped.

    The call runs in a daemon thread, because nothing can interrupt a blocking read of a socket from outside.
    """
    future: Future[_Result] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # raised again by the waiting thread
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    while not wait([future], timeout=_POLL_PERIOD).done:
        if stopped.is_set():
            raise InterruptedRun("interrupted")
    return future.result()


def map_concurrently(
    function: Callable[[_Item], _Result], items: Iterable[_Item], stopped: threading.Event, *, lanes: int = 8
) -> list[_Result]:
    """Call the function for each item, `lanes` at a time, and return the results in the order of the items.

    Ctrl-C sets `stopped`, which ends the requests that are under way.
    """
    with ThreadPoolExecutor(lanes) as pool:
        try:
            return list(pool.map(function, items))
        except KeyboardInterrupt:
            stopped.set()
            raise


def open_session(retries: Retry | int = _RETRIES, *, stopped: threading.Event) -> requests.Session:
    """Return a session that trusts SSL_CERT_FILE if set, repeats requests as `retries` says, and has time limits.

    Raises UsageError if SSL_CERT_FILE cannot be read.
    """
    opened = _Session()
    opened.stopped = stopped
    opened.headers["User-Agent"] = f"builder/{builder.__version__}"
    bundle = os.environ.get("SSL_CERT_FILE")
    if bundle:
        if not os.access(bundle, os.R_OK):
            raise UsageError(
                f"SSL_CERT_FILE names {bundle}, which cannot be read", hint="correct or unset SSL_CERT_FILE"
            )
        opened.verify = bundle
    for scheme in ("https://", "http://"):
        opened.mount(scheme, HTTPAdapter(max_retries=retries, pool_maxsize=16))
    return opened


def failure_reason(error: requests.RequestException) -> str:
    """Return the innermost cause of a failed request, without the wrapping of requests and urllib3."""
    cause: BaseException = error
    while cause.args and isinstance(cause.args[0], BaseException):
        cause = cause.args[0]
    inner = getattr(cause, "reason", None)
    text = str(inner if isinstance(inner, BaseException) else cause)
    return _CONNECTION.sub("", text)
