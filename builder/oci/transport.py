"""HTTP requests to registries: addresses and schemes, logins and tokens, retries, interruption."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, Final, Literal, NamedTuple
from urllib.parse import urljoin

import requests

from builder import http
from builder.contract import MANIFEST_TYPES
from builder.errors import InterruptedRun, RegistryError
from builder.oci.credentials import credentials_for
from builder.oci.reference import DOCKER_HUB, ImageRef
from builder.parse import Document, MalformedError, parse_document, parse_or_raise

Action = Literal["pull", "push", "delete"]

_HUB_HOST: Final = "registry-1.docker.io"
_CHALLENGE = re.compile(r'(?P<key>[a-z]+)="(?P<value>[^"]*)"')
_TEMPORARY: Final = {429, 500, 502, 503, 504}
_PAUSES: Final = (0.5, 1.0, 2.0, 4.0)  # seconds before each further attempt
_LONGEST_PAUSE: Final = 60.0  # seconds, even if Retry-After asks for more
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Target:
    """The reference that a request is about. With a mirror, `original` is the reference before the replacement.

    `source` is another repository of the registry, which the request reads from.
    """

    ref: ImageRef
    original: ImageRef
    source: str | None = None

    def __str__(self) -> str:
        return str(self.original) if self.ref == self.original else f"{self.original} (mirror: {self.ref})"


class _ConnectionLostError(Exception):
    """A request got no answer, or only a part of one; it may be repeated."""


class Upload:
    """A file that requests uploads: it has a length, and stops when the run is interrupted."""

    def __init__(self, file: IO[bytes], stopped: threading.Event) -> None:
        self._file = file
        self._stopped = stopped
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
        return self._file.read(size)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _TokenAnswer(Document):
    """The answer of a token server (Docker registry documentation, "Token Authentication Specification")."""

    token: str | None = None
    access_token: str | None = None


class _ErrorEntry(Document):
    """One error of a registry (distribution specification, "Error Codes")."""

    code: str | None = None
    message: str | None = None
    detail: Any = None


class _ErrorAnswer(Document):
    """A registry's answer to a request that failed."""

    errors: tuple[_ErrorEntry, ...]


class _Access(NamedTuple):
    """What a token is for: the actions on a repository, and the reading of a second one."""

    registry: str
    repository: str
    actions: str
    source: str | None = None


class Transport:
    """Sends requests to registries, over one connection pool, with a token per repository and kind of access.

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
        for pause in _PAUSES:
            retry_after: float | None = None
            try:
                response = attempt()
                if response.status_code not in _TEMPORARY:
                    return response
                retry_after = _retry_after(response)
            except _ConnectionLostError:
                pass
            if self.stopped.wait(min(retry_after or pause, _LONGEST_PAUSE)):
                raise InterruptedRun("interrupted")
        try:
            return attempt()
        except _ConnectionLostError as error:
            raise RegistryError(
                f"cannot reach the registry {target.ref.registry} for {target}: {error} ({len(_PAUSES) + 1} attempts)",
                hint="check the name and the network; --mirror or [mirrors] names another registry, "
                "SSL_CERT_FILE a CA bundle to trust",
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
    ) -> requests.Response:
        """Send a request; repeat it if it fails for a temporary reason."""
        return self.retry(
            target, lambda: self.send_once(method, target, path, action=action, headers=headers, body=body)
        )  # fmt: skip

    def send_once(
        self,
        method: str,
        target: Target,
        path: str,
        *,
        action: Action = "pull",
        headers: Mapping[str, str] | None = None,
        body: Callable[[], Any] = lambda: None,
        stream: bool = False,
    ) -> requests.Response:
        """Send a request once, or again with a new token if the registry demands one. `path` may be a whole URL."""
        url = join_url(f"{self._origin(target.ref.registry)}/v2/{target.ref.repository}/", path, target)
        actions = "pull" if action == "pull" else f"pull,{action}"
        access = _Access(target.ref.registry, target.ref.repository, actions, target.source)
        if self.stopped.is_set():
            raise InterruptedRun("interrupted")
        try:
            response = self._send_authorized(method, url, access, headers, body(), stream=stream)
            if response.status_code == requests.codes.unauthorized:
                self._authorization[access] = self._authorize(response, access)
                response = self._send_authorized(method, url, access, headers, body(), stream=stream)
        except requests.exceptions.SSLError as error:
            raise RegistryError(
                f"the certificate of {target.ref.registry} is not trusted ({target}): {http.failure_reason(error)}",
                hint="set SSL_CERT_FILE to a CA bundle to trust",
            ) from error
        except requests.exceptions.InvalidURL as error:
            raise RegistryError(f"{target.ref.registry} sent an invalid address for {target}: {error}") from error
        except requests.RequestException as error:
            raise _ConnectionLostError(http.failure_reason(error)) from error
        return response

    def download(self, target: Target, path: str, file: IO[bytes]) -> requests.Response:
        """Write the body of an answer to an empty file; repeat the request if it fails for a temporary reason."""
        return self.retry(target, lambda: self._download_once(target, path, file))

    def _download_once(self, target: Target, path: str, file: IO[bytes]) -> requests.Response:
        file.seek(0)
        file.truncate()
        with self.send_once("GET", target, path, stream=True) as response:
            try:
                for chunk in response.iter_content(_CHUNK) if response.ok else ():
                    if self.stopped.is_set():
                        raise InterruptedRun("interrupted")
                    file.write(chunk)
                file.flush()
            except requests.RequestException as error:
                raise _ConnectionLostError(http.failure_reason(error)) from error
            return response

    def _send_authorized(
        self, method: str, url: str, access: _Access, headers: Mapping[str, str] | None, body: Any,
        *, stream: bool,
    ) -> requests.Response:  # fmt: skip
        sent = {"Accept": ", ".join(MANIFEST_TYPES), **(headers or {})}
        if access in self._authorization and url.startswith(f"{self._origin(access.registry)}/"):
            sent["Authorization"] = self._authorization[access]
        try:
            return self._session.request(method, url, headers=sent, data=body, auth=_keep_authorization, stream=stream)
        finally:
            if isinstance(body, Upload):
                body.close()

    def _origin(self, registry: str) -> str:
        host = _HUB_HOST if registry == DOCKER_HUB else registry
        name = host.rpartition(":")[0] or host
        plain = registry in self._insecure or name in {"localhost", "127.0.0.1", "[::1]"}
        return f"{'http' if plain else 'https'}://{host}"

    def _authorize(self, response: requests.Response, access: _Access) -> str:
        """Return the Authorization header that the registry's challenge demands; fetch a token if it demands one."""
        registry, repository, actions, source = access
        challenge = response.headers.get("WWW-Authenticate", "")
        credentials = credentials_for(registry)
        login = f"docker login {registry}"
        if challenge.lower().startswith("basic"):
            if not credentials:
                raise RegistryError(f"{registry} requires a password", hint=login)
            return requests.auth._basic_auth_str(*credentials)  # noqa: SLF001 - requests has no public name for it
        parameters = {match["key"]: match["value"] for match in _CHALLENGE.finditer(challenge)}
        if "realm" not in parameters:
            raise RegistryError(f"{registry} denies access without a challenge ({response.status_code})")
        scopes = [f"repository:{repository}:{actions}", *([f"repository:{source}:pull"] if source else [])]
        query = {"service": parameters.get("service", ""), "scope": scopes}
        answer = self._session.get(parameters["realm"], params=query, auth=credentials)
        if not answer.ok:
            raise RegistryError(
                f"{registry} refused a token for {repository}: {answer.status_code} {answer.reason}", hint=login
            )
        fault = RegistryError(f"{registry} did not send a token for {repository}", hint=login)
        body = parse_or_raise(_TokenAnswer, answer.content, fault)
        token = body.token or body.access_token
        if not token:
            raise fault
        return f"Bearer {token}"


def _keep_authorization(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keep requests from replacing the Authorization header by a netrc entry."""
    return request


def _retry_after(response: requests.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else None  # the other form, a date, is rare


def check_response(response: requests.Response, target: Target, verb: str) -> None:
    """Raise RegistryError, which quotes the registry, unless the request succeeded."""
    if response.ok:
        return
    registry = target.ref.registry
    answer = f"{response.status_code} {response.reason}{_registry_errors(response)}"
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
    return f" ({'; '.join(texts)})" if texts else ""


def join_url(base: str, address: str, target: Target) -> str:
    """Resolve an address from a registry's answer; raise RegistryError if it is not a URL."""
    try:
        return urljoin(base, address)
    except ValueError as error:
        raise RegistryError(f"{target.ref.registry} sent an invalid address for {target}: {error}") from error
