"""HTTP requests to registries: addresses and schemes, logins and tokens, retries, interruption."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, Final, Literal, NamedTuple
from urllib.parse import urljoin

import requests

from builder import http
from builder.contract import MANIFEST_TYPES
from builder.errors import InterruptedRun, RegistryError
from builder.http import ANSWER_BYTES, ANSWER_SECONDS, TEMPORARY, Origin, RefusedError, keep_authorization
from builder.oci.challenge import Challenge, TokenServerBusyError, fetch_authorization
from builder.oci.reference import DOCKER_HUB
from builder.oci.target import Target
from builder.parse import Document, MalformedError, one_line, parse_document

retries = logging.getLogger("builder.retries")  # shown while somebody waits, see builder.cli.verbosity
Action = Literal["pull", "push", "delete"]

_HUB_HOST: Final = "registry-1.docker.io"
_PAUSES: Final = (0.5, 1.0, 2.0, 4.0)  # seconds before each further attempt
_LONGEST_TEXT: Final = 1000  # characters of an error that are shown
_LONGEST_PAUSE: Final = 60.0  # seconds, even if Retry-After asks for more
_PROXY: Final = "correct or unset that variable, or list the registry's host in NO_PROXY"
_REPORT: Final = "try again later, or report it to whoever runs the registry"
_ELSEWHERE: Final = "the password of a registry is for that registry only; report it to whoever runs the registry"
_CHUNK: Final = 1 << 20
_SLOWEST: Final = 50_000  # bytes per second of a blob


class _Access(NamedTuple):
    """What a token is for: the actions on a repository, and the reading of a second one."""

    registry: str
    repository: str
    actions: str
    source: str | None


@dataclass(frozen=True, kw_only=True)
class _Request:
    """A request to a registry; `body` makes its body anew for each attempt.

    With a `sink`, the body of a success goes to that file.
    """

    method: str
    target: Target
    action: Action
    headers: Mapping[str, str]
    body: Callable[[], Any]
    limit: int = ANSWER_BYTES
    sink: IO[bytes] | None = None

    @property
    def access(self) -> _Access:
        """What the request needs a token for."""
        ref = self.target.ref
        actions = "pull" if self.action == "pull" else f"pull,{self.action}"
        return _Access(ref.registry, ref.repository, actions, self.target.source)


class _ConnectionLostError(Exception):
    """A request got no answer, or only a part of one; it may be repeated."""


class Upload:
    """A file that requests uploads: it has a length, and stops when the run is interrupted.

    `on_bytes` is told how many bytes were read so far.
    """

    def __init__(
        self, file: IO[bytes], stopped: threading.Event, on_bytes: Callable[[int], None] = lambda _: None
    ) -> None:
        self._file = file
        self._stopped = stopped
        self._on_bytes = on_bytes
        self._size = file.seek(0, 2)
        file.seek(0)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.read(_CHUNK):
            yield chunk

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes; raise InterruptedRun if the run is stopped."""
        if self._stopped.is_set():
            raise InterruptedRun("interrupted")
        chunk = self._file.read(size)
        self._on_bytes(self._file.tell())
        return chunk

    def rewound(self) -> Upload:
        """Return itself, at its beginning again."""
        self._file.seek(0)
        return self

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _ErrorEntry(Document):
    """One error of a registry (distribution specification, "Error Codes")."""

    code: str | None = None
    message: str | None = None
    detail: Any = None


class _ErrorAnswer(Document):
    """A registry's answer to a request that failed."""

    errors: tuple[_ErrorEntry, ...]


class Transport:
    """Sends requests to registries, over one connection pool, with a token per repository and kind of access.

    Passwords and tokens are for the origin of a reference's registry. What is elsewhere (a redirect, an upload's
    location, a next page) is asked without, and may not demand any.
    Registries in `insecure`, and those on this machine, are reached over plain HTTP. `stopped` ends every request.
    """

    def __init__(self, *, insecure: Iterable[str], stopped: threading.Event) -> None:
        self.stopped = stopped
        self._insecure = frozenset(insecure)
        self._session = http.open_session(retries=0, stopped=stopped)  # `retry` repeats requests
        self._authorization: dict[_Access, str] = {}

    def retry(self, target: Target, attempt: Callable[[], requests.Response]) -> requests.Response:
        """Repeat an attempt that failed for a temporary reason, up to four times.

        Returns the last response, whatever its status. Raises RegistryError if the registry cannot be reached.
        """
        for number, pause in enumerate(_PAUSES, 2):
            retry_after: float | None = None
            try:
                response = attempt()
                if response.status_code not in TEMPORARY:
                    return response
                retry_after, reason = _retry_after(response), http.status_of(response)
            except _ConnectionLostError as error:
                reason = str(error)
            seconds = min(retry_after or pause, _LONGEST_PAUSE)
            retries.warning(
                "%s: %s; attempt %d of %d in %g s", target.ref.registry, reason, number, len(_PAUSES) + 1, seconds
            )
            if self.stopped.wait(seconds):
                raise InterruptedRun("interrupted")
        try:
            return attempt()
        except _ConnectionLostError as error:
            raise RegistryError(
                f"cannot reach the registry {target.ref.registry} for {target}: {error} ({len(_PAUSES) + 1} attempts)",
                hint=_PROXY if str(error).startswith("the proxy of ") else target.advice,
            ) from error

    def send(
        self,
        method: str,
        target: Target,
        path: str,
        *,
        action: Action = "pull",
        headers: Mapping[str, str] | None = None,
        body: Callable[[], Any] = lambda: None,
        limit: int = ANSWER_BYTES,
    ) -> requests.Response:
        """Send a request; repeat it if it fails for a temporary reason. The answer has at most `limit` bytes."""
        request = _Request(method=method, target=target, action=action, headers=headers or {}, body=body, limit=limit)
        return self.retry(target, lambda: self._send_once(request, path))

    def send_once(
        self,
        method: str,
        target: Target,
        path: str,
        *,
        action: Action = "pull",
        headers: Mapping[str, str] | None = None,
        body: Callable[[], Any] = lambda: None,
    ) -> requests.Response:
        """Send a request once, or again with a new token if the registry demands one. `path` may be a whole URL."""
        request = _Request(method=method, target=target, action=action, headers=headers or {}, body=body)
        return self._send_once(request, path)

    def download(self, target: Target, path: str, sink: IO[bytes], *, limit: int) -> requests.Response:
        """Write the body of an answer, of at most `limit` bytes, to a file; repeat it after a temporary failure."""
        request = _Request(
            method="GET", target=target, action="pull", headers={}, body=lambda: None, limit=limit, sink=sink
        )
        return self.retry(target, lambda: self._send_once(request, path))

    def join_url(self, base: str, address: str, target: Target) -> str:
        """Resolve an address from a registry's answer; raise RegistryError if it is no URL, or leaves TLS."""
        home = self._origin(target.ref.registry)
        try:
            url = urljoin(base, address)
            there = Origin.of(url)
        except ValueError as error:
            raise RegistryError(f"{target.ref.registry} sent an invalid address for {target}: {error}") from error
        if not home.may_lead_to(there):
            raise RegistryError(f"{target.ref.registry} leads from https to {there} for {target}", hint=_ELSEWHERE)
        return url

    def _send_once(self, request: _Request, path: str) -> requests.Response:
        target = request.target
        url = self.join_url(f"{self._origin(target.ref.registry)}/v2/{target.ref.repository}/", path, target)
        if self.stopped.is_set():
            raise InterruptedRun("interrupted")
        try:
            response = self._send_authorized(request, url, self._authorization.get(request.access))
            if response.status_code == requests.codes.unauthorized:
                authorization = self._authorize(response, request.access)
                response = self._send_authorized(request, url, authorization)
                self._authorization[request.access] = authorization  # now: others could use up a token of few requests
        except requests.exceptions.SSLError as error:
            raise RegistryError(
                f"the certificate of {target.ref.registry} is not trusted ({target}): {http.failure_reason(error)}",
                hint="set SSL_CERT_FILE to a CA bundle to trust",
            ) from error
        except RefusedError as error:
            raise RegistryError(f"{target.ref.registry} sent {error} for {target}", hint=_REPORT) from error
        except requests.exceptions.InvalidURL as error:
            raise RegistryError(f"{target.ref.registry} sent an invalid address for {target}: {error}") from error
        except requests.RequestException as error:
            raise _ConnectionLostError(http.failure_reason(error)) from error
        return response

    def _send_authorized(self, request: _Request, url: str, authorization: str | None) -> requests.Response:
        home = self._origin(request.target.ref.registry)
        headers = {"Accept": ", ".join(MANIFEST_TYPES), "Accept-Encoding": "identity", **request.headers}
        if authorization and Origin.of(url) == home:
            headers["Authorization"] = authorization
        content = request.body()
        size = max(len(content or b""), request.limit - ANSWER_BYTES)
        try:
            response = self._session.request(
                request.method, url, headers=headers, auth=keep_authorization,
                body=content.rewound if isinstance(content, Upload) else lambda: content,
                limit=request.limit, seconds=ANSWER_SECONDS + size / _SLOWEST, sink=request.sink,
            )  # fmt: skip
        finally:
            if isinstance(content, Upload):
                content.close()
        there = Origin.of(str(response.url))
        if response.status_code == requests.codes.unauthorized and there != home:
            raise RegistryError(f"{there} demands a password for {request.target}, but is not {home}", hint=_ELSEWHERE)
        return response

    def _origin(self, registry: str) -> Origin:
        host = _HUB_HOST if registry == DOCKER_HUB else registry
        name = host.rpartition(":")[0] or host
        plain = registry in self._insecure or name in {"localhost", "127.0.0.1", "[::1]"}
        return Origin.of(f"{'http' if plain else 'https'}://{host}")

    def _authorize(self, response: requests.Response, access: _Access) -> str:
        """Return the Authorization header that the registry's challenge demands."""
        header = response.headers.get("WWW-Authenticate", "")
        challenge = Challenge.parse(header, self._origin(access.registry), registry=access.registry)
        scopes = [f"repository:{access.repository}:{access.actions}"]
        if access.source:
            scopes.append(f"repository:{access.source}:pull")
        try:
            return fetch_authorization(self._session, challenge, registry=access.registry, scopes=scopes)
        except TokenServerBusyError as error:
            raise _ConnectionLostError(str(error)) from error


def _retry_after(response: requests.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else None  # the other form, a date, is rare


def check_response(response: requests.Response, target: Target, verb: str) -> None:
    """Raise RegistryError, which quotes the registry, unless the request succeeded."""
    registry = target.ref.registry
    if media_type_of(response) == "text/html" and response.ok:
        raise RegistryError(
            f"{registry} answered with a web page for {target}",
            hint="check the address and the network: a login page or a proxy may have answered",
        )
    if 200 <= response.status_code < 300:
        return
    answer = f"{http.status_of(response)}{_registry_errors(response)}"
    if response.status_code == requests.codes.not_found:
        raise RegistryError(f"no such image: {target}", hint="check its name and tag in the matrix")
    if response.status_code in {requests.codes.unauthorized, requests.codes.forbidden}:
        raise RegistryError(
            f"{registry} does not allow this user to {verb} {target}: {answer}",
            hint=f"docker login {registry}; some registries answer like this if the image does not exist",
        )
    raise RegistryError(f"{registry} answered {answer} for {target}", hint="try again later")


def _registry_errors(response: requests.Response) -> str:
    try:
        errors = parse_document(_ErrorAnswer, response.content).errors
    except MalformedError:
        return ""
    texts = [f"{error.message or error.code} {error.detail or ''}".strip() for error in errors]
    text = one_line("; ".join(texts))
    return f" ({text if len(text) <= _LONGEST_TEXT else f'{text[:_LONGEST_TEXT]}…'})" if texts else ""


def media_type_of(response: requests.Response) -> str:
    """Return the media type of an answer, without parameters; empty if the answer states none."""
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
