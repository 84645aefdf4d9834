"""Registries: digests, manifests as the bytes they are, blobs, tags, deletion.

The protocol is the OCI distribution specification's. Underneath is requests (urllib3), as in Docker's own SDK, and no
registry client: those for Python (oras, dxf) hand manifests out parsed, and a digest is one of bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, Final, Literal, TypeVar
from urllib.parse import urljoin

import requests

from builder import network
from builder.credentials import credentials_for
from builder.errors import InterruptedRun, RegistryError
from builder.refs import DOCKER_HUB, Digest, ImageRef, Mirrors

MANIFEST_TYPES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
INDEX_TYPES: Final = MANIFEST_TYPES[:2]

_HUB_HOST: Final = "registry-1.docker.io"
_CHALLENGE = re.compile(r'(?P<key>[a-z]+)="(?P<value>[^"]*)"')
_PASSING: Final = {429, 500, 502, 503, 504}
_PAUSES: Final = (0.5, 1.0, 2.0, 4.0)  # seconds before each further attempt
_LONGEST_PAUSE: Final = 60.0  # seconds, whatever Retry-After says
_CHUNK: Final = 1 << 20

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A manifest or index, byte for byte as the registry has it."""

    content: bytes
    media_type: str

    @property
    def digest(self) -> Digest:
        """The digest that names it."""
        return digest_of(self.content)

    @property
    def table(self) -> Mapping[str, Any]:
        """Its content, parsed."""
        parsed: Mapping[str, Any] = json.loads(self.content)
        return parsed

    @property
    def children(self) -> tuple[Digest, ...]:
        """The manifests that an index refers to, the images first, then what is said of them; none of a manifest."""
        entries = self.table.get("manifests") or [] if self.media_type in INDEX_TYPES else []
        return tuple(Digest.from_str(entry["digest"]) for entry in sorted(entries, key=is_attestation))


def is_attestation(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of an index is no image but what BuildKit says of one."""
    return (entry.get("annotations") or {}).get("vnd.docker.reference.type") == "attestation-manifest"


def digest_of(content: bytes) -> Digest:
    """Return the SHA-256 digest of the bytes."""
    return Digest(algorithm="sha256", hex=hashlib.sha256(content).hexdigest())


class Registries:
    """The registries that a run asks, with one connection pool and one token for each repository and kind of access.

    `resolve` goes through the mirrors; everything else goes to where the reference says. `insecure` registries are
    asked over plain HTTP, as those on this machine always are. `stopped` ends whatever they are waited for.
    """

    def __init__(
        self, mirrors: Mirrors, *, insecure: Iterable[str] = (), stopped: threading.Event | None = None
    ) -> None:
        self.mirrors = mirrors
        self._insecure = frozenset(insecure)
        self._stopped = stopped or threading.Event()
        self._session = network.session(retries=0, stopped=self._stopped)  # `_persist` repeats
        self._authorization: dict[tuple[str, str, str], str] = {}

    def resolve_all(self, refs: Iterable[ImageRef]) -> dict[ImageRef, Digest]:
        """Return the digest of each reference; one request for each, several at a time."""
        refs = list(refs)
        return dict(zip(refs, self.each(self.resolve, refs), strict=True))

    def each(self, function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
        """Call a function that asks these registries for each item, several at a time; return the results in order."""
        return network.side_by_side(function, items, self._stopped)

    def resolve(self, ref: ImageRef) -> Digest:
        """Return the digest of the manifest, or index, that the reference names now.

        Raises RegistryError that names the reference, and the mirror in use, where there is none or no answer.
        """
        if ref.digest:
            return ref.digest
        asked = _Asked(ref=self.mirrors.locate(ref), wanted=ref)
        digest = self._find(asked)
        if digest is None:
            raise RegistryError(f"no such image: {asked}", hint="check its name and tag in the matrix")
        return digest

    def find(self, ref: ImageRef) -> Digest | None:
        """Return the digest that a tag names, or None where there is no such tag. One request."""
        return self._find(_Asked(ref=ref, wanted=ref))

    def _find(self, asked: _Asked) -> Digest | None:
        path = f"manifests/{asked.ref.tag or 'latest'}"
        response = self._ask("HEAD", asked, path)
        if response.ok and "Docker-Content-Digest" not in response.headers:
            # The header is optional in the specification; the digest is that of the body.
            response = self._ask("GET", asked, path)
        if response.status_code == requests.codes.not_found:
            return None
        _check(response, asked, "read")
        text = response.headers.get("Docker-Content-Digest")
        return Digest.from_str(text) if text else digest_of(response.content)

    def manifest(self, ref: ImageRef) -> Manifest | None:
        """Return the manifest that a tag or digest names, or None; raise where it is not the digest asked for."""
        asked = _Asked(ref=ref, wanted=ref)
        response = self._ask("GET", asked, f"manifests/{ref.digest or ref.tag}")
        if response.status_code == requests.codes.not_found:
            return None
        _check(response, asked, "read")
        manifest = Manifest(content=response.content, media_type=response.headers.get("Content-Type", ""))
        if ref.digest and manifest.digest != ref.digest:
            raise RegistryError(f"{ref.registry} sent something else for {ref}: {manifest.digest}")
        return manifest

    def put_manifest(self, ref: ImageRef, manifest: Manifest) -> None:
        """Put a manifest under the reference's tag, or its digest; raise unless the registry has these very bytes."""
        asked = _Asked(ref=ref, wanted=ref)
        headers = {"Content-Type": manifest.media_type}
        response = self._ask(
            "PUT", asked, f"manifests/{ref.tag or manifest.digest}", action="push", headers=headers,
            body=lambda: manifest.content,
        )  # fmt: skip
        _check(response, asked, "write")
        named = response.headers.get("Docker-Content-Digest")
        if named and named != str(manifest.digest):
            raise RegistryError(f"{ref.registry} changed the manifest of {ref}: {named}, sent {manifest.digest}")

    def has_blob(self, ref: ImageRef, digest: Digest) -> bool:
        """Whether the reference's repository has the blob."""
        asked = _Asked(ref=ref, wanted=ref)
        response = self._ask("HEAD", asked, f"blobs/{digest}")
        if response.status_code == requests.codes.not_found:
            return False
        _check(response, asked, "read")
        return True

    def blob(self, ref: ImageRef, digest: Digest) -> bytes:
        """Return a blob that fits in memory, such as a config."""
        asked = _Asked(ref=ref, wanted=ref)
        response = self._ask("GET", asked, f"blobs/{digest}")
        _check(response, asked, "read")
        if digest_of(response.content) != digest:
            raise RegistryError(f"{ref.registry} sent something else for {digest} of {ref.name}")
        return response.content

    def put_blob(self, ref: ImageRef, digest: Digest, opened: Callable[[], IO[bytes]]) -> None:
        """Upload a blob unless it is there; `opened` gives its content anew for each attempt."""
        if self.has_blob(ref, digest):
            return
        asked = _Asked(ref=ref, wanted=ref)
        _check(self._persist(asked, lambda: self._upload(asked, digest, opened)), asked, "write")

    def _upload(self, asked: _Asked, digest: Digest, opened: Callable[[], IO[bytes]]) -> requests.Response:
        """One attempt: open an upload, send all of it (the specification's POST, then PUT)."""
        begun = self._attempt("POST", asked, "blobs/uploads/", action="push")
        if begun.status_code != requests.codes.accepted:
            return begun
        where = urljoin(begun.url, begun.headers["Location"])
        where += f"{'&' if '?' in where else '?'}digest={digest}"
        headers = {"Content-Type": "application/octet-stream"}
        return self._attempt("PUT", asked, where, action="push", headers=headers, body=lambda: self._sent(opened))

    def _sent(self, opened: Callable[[], IO[bytes]]) -> _Upload:
        return _Upload(opened(), self._stopped)

    def tags(self, ref: ImageRef) -> tuple[str, ...]:
        """Return all tags of the reference's repository; none where there is no such repository."""
        asked = _Asked(ref=ref, wanted=ref)
        found: list[str] = []
        path = "tags/list?n=1000"
        while path:
            response = self._ask("GET", asked, path)
            if response.status_code == requests.codes.not_found:
                return ()
            _check(response, asked, "read")
            found += response.json().get("tags") or []
            path = urljoin(response.url, response.links["next"]["url"]) if "next" in response.links else ""
        return tuple(sorted(found))

    def delete(self, ref: ImageRef) -> None:
        """Delete a manifest by its digest, and with it every tag that names it.

        Raises RegistryError where the registry does not offer that.
        """
        asked = _Asked(ref=ref.without_tag(), wanted=ref)
        response = self._ask("DELETE", asked, f"manifests/{ref.digest}", action="delete")
        if response.status_code == requests.codes.method_not_allowed:
            raise RegistryError(
                f"{ref.registry} does not delete", hint="turn deletion on there, or use its own clean-up policies"
            )
        if response.status_code != requests.codes.not_found:
            _check(response, asked, "delete")

    def _persist(self, asked: _Asked, attempt: Callable[[], requests.Response]) -> requests.Response:
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
            if self._stopped.wait(min(asked_for or pause, _LONGEST_PAUSE)):
                raise InterruptedRun("interrupted")
        try:
            return attempt()
        except _ConnectionLostError as error:
            raise RegistryError(
                f"cannot reach the registry {asked.ref.registry} for {asked}: {error}, at each of "
                f"{len(_PAUSES) + 1} attempts",
                hint="check the name and the network; --mirror or [mirrors] names another registry, "
                "SSL_CERT_FILE the CA bundle to trust",
            ) from error

    def _ask(
        self,
        method: str,
        asked: _Asked,
        path: str,
        *,
        action: Literal["pull", "push", "delete"] = "pull",
        headers: Mapping[str, str] | None = None,
        body: Callable[[], Any] = lambda: None,
    ) -> requests.Response:
        """Send a request, again where it fails in a way which may pass."""
        return self._persist(
            asked, lambda: self._attempt(method, asked, path, action=action, headers=headers, body=body)
        )  # fmt: skip

    def _attempt(
        self,
        method: str,
        asked: _Asked,
        path: str,
        *,
        action: Literal["pull", "push", "delete"] = "pull",
        headers: Mapping[str, str] | None = None,
        body: Callable[[], Any] = lambda: None,
    ) -> requests.Response:
        """Send one request, with a fresh token where the registry wants one; `path` may be a whole URL."""
        url = urljoin(f"{self._origin(asked.ref.registry)}/v2/{asked.ref.repository}/", path)
        access = (asked.ref.registry, asked.ref.repository, "pull" if action == "pull" else f"pull,{action}")
        if self._stopped.is_set():
            raise InterruptedRun("interrupted")
        try:
            response = self._send(method, url, access, headers, body())
            if response.status_code == requests.codes.unauthorized:
                self._authorization[access] = self._authorize(response, access)
                response = self._send(method, url, access, headers, body())
        except requests.exceptions.SSLError as error:
            raise RegistryError(
                f"the certificate of {asked.ref.registry} is not trusted, asking for {asked}: {network.reason(error)}",
                hint="name the CA bundle to trust with SSL_CERT_FILE",
            ) from error
        except requests.exceptions.InvalidURL as error:
            raise RegistryError(
                f"{asked.ref.registry} names no place that can be asked for {asked}: {error}"
            ) from error
        except requests.RequestException as error:
            raise _ConnectionLostError(network.reason(error)) from error
        return response

    def _send(
        self, method: str, url: str, access: tuple[str, str, str], headers: Mapping[str, str] | None, body: Any
    ) -> requests.Response:
        sent = {"Accept": ", ".join(MANIFEST_TYPES), **(headers or {})}
        if access in self._authorization and url.startswith(f"{self._origin(access[0])}/"):
            sent["Authorization"] = self._authorization[access]
        try:
            return self._session.request(method, url, headers=sent, data=body, auth=_as_it_is)
        finally:
            if isinstance(body, _Upload):
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
        asked = {match["key"]: match["value"] for match in _CHALLENGE.finditer(challenge)}
        if "realm" not in asked:
            raise RegistryError(f"{registry} refuses without saying what it wants ({response.status_code})")
        query = {"service": asked.get("service", ""), "scope": f"repository:{repository}:{actions}"}
        answer = self._session.get(asked["realm"], params=query, auth=credentials)
        if not answer.ok:
            raise RegistryError(
                f"{registry} gives no token for {repository}: {answer.status_code} {answer.reason}", hint=login
            )
        body = answer.json()
        return f"Bearer {body.get('token') or body.get('access_token')}"


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What a registry is asked for, and, where a mirror is in use, what that stands for."""

    ref: ImageRef
    wanted: ImageRef

    def __str__(self) -> str:
        return str(self.wanted) if self.ref == self.wanted else f"{self.wanted} (mirror: {self.ref})"


class _ConnectionLostError(Exception):
    """A request did not get an answer, or not all of it; it may be repeated."""


class _Upload:
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
        if self._stopped.is_set():
            raise InterruptedRun("interrupted")
        return self._file.read(size)

    def close(self) -> None:
        self._file.close()


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keep requests from putting a netrc entry over the Authorization header."""
    return request


def _retry_after(response: requests.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else None


def _check(response: requests.Response, asked: _Asked, verb: str) -> None:
    """Raise RegistryError, in the registry's own words, unless it did as asked."""
    if response.ok:
        return
    registry = asked.ref.registry
    said = f"{response.status_code} {response.reason}{_words(response)}"
    if response.status_code == requests.codes.not_found:
        raise RegistryError(f"no such image: {asked}", hint="check its name and tag in the matrix")
    if response.status_code in {requests.codes.unauthorized, requests.codes.forbidden}:
        raise RegistryError(
            f"{registry} does not let this user {verb} {asked}: {said}",
            hint=f"docker login {registry}; an image that does not exist may look like this too",
        )
    raise RegistryError(f"{registry} answers {said} for {asked}", hint="try again later")


def _words(response: requests.Response) -> str:
    try:
        errors = response.json()["errors"]
        texts = [f"{each.get('message') or each['code']} {each.get('detail') or ''}".strip() for each in errors]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    return f" ({'; '.join(texts)})"
