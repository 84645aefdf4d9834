"""HTTP sessions for registries and package indexes, and concurrent requests through them.

Every answer has a limit in bytes and in time. A redirect never leads from https to http, and an Authorization header
never to another origin. Ctrl-C ends every request at once, even if a server accepted it and never answers.
"""

from __future__ import annotations

import io
import netrc
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import IO, Any, Final, TypeVar
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3.exceptions import HTTPError, LocationValueError
from urllib3.util.retry import Retry

import builder
from builder.errors import InterruptedRun, UsageError
from builder.index_mirror import IndexMirrors

TIMEOUT: Final = (10.0, 60.0)  # seconds to connect, and seconds between two bytes
PAGE_BYTES: Final = 256 << 20  # the largest page of a package index
PAGE_SECONDS: Final = 300.0  # for such a page, with all attempts
ANSWER_BYTES: Final = 4 << 20  # the largest manifest, config, list or error; 4 MiB is what registries accept themselves
ANSWER_SECONDS: Final = 120.0  # for such an answer of a registry
TEMPORARY: Final = (429, 500, 502, 503, 504)  # status codes after which a request is repeated
_LONGEST_REASON: Final = 100  # characters of a status line
_DISPUTED: Final = re.compile(r"[\x00-\x20\\\x7f]")
_PIECE: Final = 1 << 16
_PORTS: Final = {"http": 80, "https": 443}
_MOST_REDIRECTS: Final = 10
_ANY_METHOD: Final = {307, 308}  # redirects that keep the method and the body (RFC 9110, 15.4)
_POLL_PERIOD: Final = 0.2  # seconds between two checks for an interruption
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_RETRIES = Retry(
    total=4, other=0, backoff_factor=0.5, backoff_max=20, status_forcelist=TEMPORARY,
    allowed_methods=("GET", "HEAD"), respect_retry_after_header=True, raise_on_status=False,
)  # fmt: skip
_CONNECTION = re.compile(r"^(<.*?>|HTTPS?Connection\(.*?\)|HTTPS?ConnectionPool\(.*?\)): ")


class RefusedError(requests.RequestException):
    """An answer that is not accepted, however often it is sent: too long, too slow, or a redirect to a bad address."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The server that a URL names: scheme, host in lower case, and port (RFC 6454)."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """Return the origin of a URL; raise ValueError if it is not one of http or https."""
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError("not a URL of http or https")
        # Parsers disagree about where the host of such a URL ends.
        if _DISPUTED.search(url) or not re.fullmatch(r"[a-z0-9._:-]+", parts.hostname):
            raise ValueError("not a URL with a plain host name")
        return cls(scheme=parts.scheme, host=parts.hostname, port=parts.port or _PORTS[parts.scheme])

    def may_lead_to(self, other: Origin) -> bool:
        """Whether a server may send its clients there: not from https to http."""
        return self.scheme == "http" or other.scheme == "https"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" if self.port == _PORTS[self.scheme] else f"{self.scheme}://{host}:{self.port}"


_index_mirrors = IndexMirrors()


def use_index_mirrors(mirrors: IndexMirrors) -> None:
    """Have all sessions of this run fetch from these mirrors."""
    global _index_mirrors  # noqa: PLW0603 - like NETRC and SSL_CERT_FILE, which requests reads from the environment
    _index_mirrors = mirrors


class Session(requests.Session):
    """A session whose requests have limits, end with the run, and trust the session's own CA bundle."""

    stopped: threading.Event

    def request(  # type: ignore[override] # limits instead of what requests does
        self,
        method: str,
        url: str,
        *,
        body: Callable[[], Any] = lambda: None,
        limit: int = PAGE_BYTES,
        seconds: float = PAGE_SECONDS,
        sink: IO[bytes] | None = None,
        stays: bool = False,
        **kwargs: Any,
    ) -> requests.Response:
        """Send a request and follow redirects; `body` makes the body anew for each.

        The answer has at most `limit` bytes and takes at most so many seconds. With a `sink`, the body of a success
        replaces what is in that file. A request that `stays` is not redirected to another origin: its body is secret.
        Raises requests.RequestException: RefusedError if repeating the request is pointless.
        """
        # Otherwise requests prefers REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE to the session's own bundle.
        kwargs = {"timeout": TIMEOUT, "verify": self.verify, **kwargs, "stream": True, "allow_redirects": False}
        deadline = _Deadline(seconds)

        def follow() -> requests.Response:
            address, query = _index_mirrors.locate(url), kwargs.pop("params", None)
            headers = dict(kwargs.pop("headers", None) or {})
            for _ in range(_MOST_REDIRECTS):
                response = self._send(method, address, params=query, data=body(), headers=headers, **kwargs)
                _read(response, limit, deadline, sink)
                target = _redirect_target(response, method)
                if target is None:
                    return response
                if (there := Origin.of(target)) != Origin.of(str(response.url)):
                    if stays:
                        raise RefusedError(f"a redirect of a secret to {there}")
                    headers.pop("Authorization", None)
                    kwargs.update({} if _is_in_netrc(there.host) else {"auth": keep_authorization})
                address, query = target, None
            raise RefusedError(f"more than {_MOST_REDIRECTS} redirects")

        return _call_until_stopped(self.stopped, follow, deadline)

    def _send(self, method: str, address: str, **kwargs: Any) -> requests.Response:
        try:
            return super().request(method, address, **kwargs)
        except (LocationValueError, UnicodeError) as error:  # a host name that no resolver takes
            raise requests.exceptions.InvalidURL(str(error)) from error

    def resolve_redirects(self, *_: object, **__: object) -> Iterator[Any]:
        """Yield nothing: requests would read the redirect's body, whatever its size, and then follow it."""
        return iter(())


def _is_in_netrc(host: str) -> bool:
    """Whether the netrc file, from which requests takes logins, has one for this very host.

    The one for all others is not for whom a server names in a redirect.
    """
    try:
        return host in netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, ValueError, netrc.NetrcParseError):
        return False


def keep_authorization(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keep requests from replacing the Authorization header by a netrc entry, or from adding one."""
    return request


class _Deadline:
    """The time at which something that takes too long is given up."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def check(self) -> None:
        """Raise RefusedError after the time."""
        if time.monotonic() > self._end:
            raise RefusedError(f"no complete answer in {self._seconds:.0f} seconds")


def _read(response: requests.Response, limit: int, deadline: _Deadline, sink: IO[bytes] | None) -> None:
    """Read the body of a response, piece by piece as it comes, so that neither size nor slowness is without a limit."""
    content = io.BytesIO()
    body = sink if sink and response.status_code == requests.codes.ok else content
    body.seek(0)
    body.truncate()
    size = 0
    try:
        while piece := response.raw.read1(_PIECE, decode_content=True):
            body.write(piece)
            size += len(piece)
            if size > limit:
                raise RefusedError(f"an answer of more than {limit:,} bytes")
            deadline.check()
        body.flush()
    except HTTPError as error:
        raise requests.ConnectionError(error, request=response.request) from error
    finally:
        response.close()  # which keeps the connection if everything was read
    response._content = content.getvalue()  # noqa: SLF001 - as requests itself does for `stream=False`


class LimitedAdapter(BaseAdapter):
    """Sends requests by another adapter, for a library's own session: answers have at most `limit` bytes.

    They take at most twice the time that the session allows between two bytes. `raise_if_stopped` is called while a
    stream is read; a stream that the session reads piece by piece may take longer.
    """

    def __init__(self, inner: BaseAdapter, *, limit: int, raise_if_stopped: Callable[[], None]) -> None:
        super().__init__()
        self._inner = inner
        self._limit = limit
        self._raise_if_stopped = raise_if_stopped

    def send(self, request: requests.PreparedRequest, stream: bool = False, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        """Send the request; raise RefusedError if the answer is too long or takes too long."""
        response = self._inner.send(request, stream=True, **kwargs)
        if stream:
            response.raw.read = self._counted(response.raw.read)  # type: ignore[method-assign]
        else:
            timeout = kwargs.get("timeout")
            seconds = timeout if isinstance(timeout, (int, float)) else TIMEOUT[1]
            _read(response, self._limit, _Deadline(2 * seconds), None)
        return response

    def _counted(self, read: Callable[..., bytes]) -> Callable[..., bytes]:
        left = [self._limit]

        def counted(amt: int | None = None, *arguments: Any, **kwargs: Any) -> bytes:  # urllib3 passes it by name too
            self._raise_if_stopped()
            piece = read(left[0] + 1 if amt is None else min(amt, left[0] + 1), *arguments, **kwargs)
            left[0] -= len(piece)
            if left[0] < 0:
                raise RefusedError(f"an answer of more than {self._limit:,} bytes")
            return piece

        return counted

    def close(self) -> None:
        """Close the other adapter."""
        self._inner.close()


def _redirect_target(response: requests.Response, method: str) -> str | None:
    """The URL that a redirect leads to; None if it is no redirect, or one that would change the method."""
    if not response.is_redirect or (method not in {"GET", "HEAD"} and response.status_code not in _ANY_METHOD):
        return None
    try:
        target = urljoin(str(response.url), response.headers["Location"])
        origin = Origin.of(target)
    except ValueError as error:
        raise RefusedError(f"a redirect to an invalid address: {error}") from error
    if not Origin.of(str(response.url)).may_lead_to(origin):
        raise RefusedError(f"a redirect from https to {origin}")
    return target


def _call_until_stopped(stopped: threading.Event, call: Callable[[], _Result], deadline: _Deadline) -> _Result:
    """Call the function and return its result; raise InterruptedRun as soon as the run is stopped.

    The call runs in a daemon thread, because nothing can interrupt a blocking read of a socket from outside. Raises
    RefusedError if it takes too long.
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
        deadline.check()
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


def open_session(retries: Retry | int = _RETRIES, *, stopped: threading.Event) -> Session:
    """Return a session that trusts SSL_CERT_FILE if set, repeats requests as `retries` says, and has time limits.

    Raises UsageError if SSL_CERT_FILE cannot be read.
    """
    opened = Session()
    opened.stopped = stopped
    opened.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))  # as engines: no server tells of one to another
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


def status_of(response: requests.Response) -> str:
    """Return the status code and its reason, as far as that is short."""
    return f"{response.status_code} {(response.reason or '')[:_LONGEST_REASON]}".strip()


def failure_reason(error: requests.RequestException) -> str:
    """Return the innermost cause of a failed request, without the wrapping of requests and urllib3."""
    if isinstance(error, requests.exceptions.ProxyError):
        return _proxy_failure(error)
    cause: BaseException = error
    while cause.args and isinstance(cause.args[0], BaseException):
        cause = cause.args[0]
    inner = getattr(cause, "reason", None)
    text = str(inner if isinstance(inner, BaseException) else cause)
    return _CONNECTION.sub("", text)


def _proxy_failure(error: requests.exceptions.ProxyError) -> str:
    """Which variable names the proxy that does not answer; without the proxy's login."""
    scheme = urlsplit(str(error.request.url)).scheme if error.request is not None else "https"
    names = (f"{scheme}_proxy", f"{scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY")  # in the order that requests has
    name = next((name for name in names if os.environ.get(name)), "")
    parts = urlsplit(os.environ.get(name, ""))
    address = parts.netloc.rpartition("@")[2] or parts.path
    reason = str(error)
    found = re.search(r"\[Errno -?\d+\] [^'\")]+|Tunnel connection failed: [^'\")]+|timed out", reason)
    return (
        f"the proxy of {name or 'this machine'} ({address}) does not answer: {found[0] if found else 'no connection'}"
    )
