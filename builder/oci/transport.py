"""How a registry is target: the address and scheme of each, passwords and tokens, retries, and the end of a run."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, Final, Literal
from urllib.parse import urljoin

import requests

from builder import http
from builder.contract import MANIFEST_TYPES
from builder.errors import InterruptedRun, RegistryError
from builder.oci.credentials import credentials_for
from builder.oci.reference import DOCKER_HUB, ImageRef
from builder.parse import Document, expect

Action = Literal["pull", "push", "delete"]

_HUB_HOST: Final = "registry-1.docker.io"
_CHALLENGE = re.compile(r'(?P<key>[a-z]+)="(?P<value>[^"]*)"')
_PASSING: Final = {429, 500, 502, 503, 504}
_PAUSES: Final = (0.5, 1.0, 2.0, 4.0)  # seconds before each further attempt
_LONGEST_PAUSE: Final = 60.0  # seconds, whatever Retry-After says
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a registry is asked for; with a mirror, `original` is the image that it stands for."""

    ref: ImageRef
    original: ImageRef

    def __str__(self) -> str:
        return str(self.original) if self.ref == self.original else f"{self.original} (mirror: {self.ref})"


class _ConnectionLostError(Exception):
    """A request did not get an answer, or not all of it; it may be repeated."""


class Upload:
    """A file as requests sends it: with a length, and with an end where the run is stopped."""

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
        """Read up to so many bytes; raise InterruptedRun where the run is stopped."""
        if self._stopped.is_set():
            raise InterruptedRun("interrupted")
        return self._file.read(size)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _TokenAnswer(Document):
    """What a token server answers (distribution specification, "Token Authentication")."""

    token: str | None = None
    access_token: str | None = None


class Transport:
    """Sends requests to registries, over one connection pool, with one token for each repository and kind of access.

    `insecure` registries are asked over plain HTTP, as those on this machine always are. `stopped` ends every wait.
    """

    def __init__(self, *, insecure: Iterable[str], stopped: threading.Event) -> None:
        self.stopped = stopped
        self._insecure = frozenset(insecure)
        self._session = http.open_session(retries=0, stopped=stopped)  # `persist` repeats
        self._authorization: dict[tuple[str, str, str], str] = {}

    def retry(self, target: Target, attempt: Callable[[], requests.Response]) -> requests.Response:
        """Repeat what failed in a way which may pass, a bounded number of times."""
        for pause in _PAUSES:
            asked_for: float | None = None
            try:
                response = attempt()
                if response.status_code not in _PASSING:
                    return response
                asked_for = _retry_after(response)
            except _ConnectionLostError:
                pass
            if self.stopped.wait(min(asked_for or pause, _LONGEST_PAUSE)):
                raise InterruptedRun("interrupted")
        try:
            return attempt()
        except _ConnectionLostError as error:
            raise RegistryError(
                f"cannot reach the registry {target.ref.registry} for {target}: {error}, at each of "
                f"{len(_PAUSES) + 1} attempts",
                hint="check the name and the network; --mirror or [mirrors] names another registry, "
                "SSL_CERT_FILE the CA bundle to trust",
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
        """Send a request, again where it fails in a way which may pass."""
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
    ) -> requests.Response:
        """Send one request, with a fresh token where the registry wants one; `path` may be a whole URL."""
        url = urljoin(f"{self._origin(target.ref.registry)}/v2/{target.ref.repository}/", path)
        access = (target.ref.registry, target.ref.repository, "pull" if action == "pull" else f"pull,{action}")
        if self.stopped.is_set():
            raise InterruptedRun("interrupted")
        try:
            response = self._send_authorized(method, url, access, headers, body())
            if response.status_code == requests.codes.unauthorized:
                self._authorization[access] = self._authorize(response, access)
                response = self._send_authorized(method, url, access, headers, body())
        except requests.exceptions.SSLError as error:
            raise RegistryError(
                f"the certificate of {target.ref.registry} is not trusted ({target}): {http.failure_reason(error)}",
                hint="name the CA bundle to trust with SSL_CERT_FILE",
            ) from error
        except requests.exceptions.InvalidURL as error:
            raise RegistryError(
                f"{target.ref.registry} names no place that can be asked for {target}: {error}"
            ) from error
        except requests.RequestException as error:
            raise _ConnectionLostError(http.failure_reason(error)) from error
        return response

    def _send_authorized(
        self, method: str, url: str, access: tuple[str, str, str], headers: Mapping[str, str] | None, body: Any
    ) -> requests.Response:
        sent = {"Accept": ", ".join(MANIFEST_TYPES), **(headers or {})}
        if access in self._authorization and url.startswith(f"{self._origin(access[0])}/"):
            sent["Authorization"] = self._authorization[access]
        try:
            return self._session.request(method, url, headers=sent, data=body, auth=_keep_authorization)
        finally:
            if isinstance(body, Upload):
                body.close()

    def _origin(self, registry: str) -> str:
        host = _HUB_HOST if registry == DOCKER_HUB else registry
        name = host.rpartition(":")[0] or host
        plain = registry in self._insecure or name in {"localhost", "127.0.0.1", "[::1]"}
        return f"{'http' if plain else 'https'}://{host}"

    def _authorize(self, response: requests.Response, access: tuple[str, str, str]) -> str:
        """Return the Authorization header that the registry's challenge asks for."""
        registry, repository, actions = access
        challenge = response.headers.get("WWW-Authenticate", "")
        credentials = credentials_for(registry)
        login = f"docker login {registry}"
        if challenge.lower().startswith("basic"):
            if not credentials:
                raise RegistryError(f"{registry} wants a password", hint=login)
            return requests.auth._basic_auth_str(*credentials)  # noqa: SLF001 - requests offers no other name for it
        parameters = {match["key"]: match["value"] for match in _CHALLENGE.finditer(challenge)}
        if "realm" not in parameters:
            raise RegistryError(f"{registry} refuses without saying what it wants ({response.status_code})")
        query = {"service": parameters.get("service", ""), "scope": f"repository:{repository}:{actions}"}
        answer = self._session.get(parameters["realm"], params=query, auth=credentials)
        if not answer.ok:
            raise RegistryError(
                f"{registry} gives no token for {repository}: {answer.status_code} {answer.reason}", hint=login
            )
        fault = RegistryError(f"{registry} did not send a token for {repository}", hint=login)
        body = expect(_TokenAnswer, answer.content, fault)
        token = body.token or body.access_token
        if not token:
            raise fault
        return f"Bearer {token}"


def _keep_authorization(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keep requests from putting a netrc entry over the Authorization header."""
    return request


def _retry_after(response: requests.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else None


def check_response(response: requests.Response, target: Target, verb: str) -> None:
    """Raise RegistryError, in the registry's own words, unless it did as asked."""
    if response.ok:
        return
    registry = target.ref.registry
    said = f"{response.status_code} {response.reason}{_registry_errors(response)}"
    if response.status_code == requests.codes.not_found:
        raise RegistryError(f"no such image: {target}", hint="check its name and tag in the matrix")
    if response.status_code in {requests.codes.unauthorized, requests.codes.forbidden}:
        raise RegistryError(
            f"{registry} does not let this user {verb} {target}: {said}",
            hint=f"docker login {registry}; an image that does not exist may look like this too",
        )
    raise RegistryError(f"{registry} answers {said} for {target}", hint="try again later")


def _registry_errors(response: requests.Response) -> str:
    try:
        errors = response.json()["errors"]
        texts = [f"{each.get('message') or each['code']} {each.get('detail') or ''}".strip() for each in errors]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    return f" ({'; '.join(texts)})"
