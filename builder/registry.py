"""Registries: the digest that a reference stands for.

The protocol is the OCI distribution specification's; requests is underneath, as in Docker's own SDK. Credentials are
those of Docker's config file, its credential helpers included.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import requests

from builder import network
from builder.command import run
from builder.errors import BuilderError, RegistryError
from builder.refs import DOCKER_HUB, Digest, ImageRef, Mirrors

MANIFEST_TYPES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_HUB_HOST: Final = "registry-1.docker.io"
_HUB_CONFIG_KEY: Final = "https://index.docker.io/v1/"
_CHALLENGE = re.compile(r'(?P<key>[a-z]+)="(?P<value>[^"]*)"')


class Registries:
    """The registries that a run asks, through its mirrors, with one connection pool and one token for each scope."""

    def __init__(self, mirrors: Mirrors) -> None:
        self.mirrors = mirrors
        self._session = network.session()
        self._authorization: dict[tuple[str, str], str] = {}

    def resolve_all(self, refs: Iterable[ImageRef]) -> dict[ImageRef, Digest]:
        """Return the digest of each reference; one request for each, several at a time."""
        refs = list(refs)
        with ThreadPoolExecutor(max_workers=8) as pool:
            return dict(zip(refs, pool.map(self.resolve, refs), strict=True))

    def resolve(self, ref: ImageRef) -> Digest:
        """Return the digest of the manifest, or index, that the reference names now.

        Raises RegistryError that names the reference, and the mirror in use, where there is none or no answer.
        """
        if ref.digest:
            return ref.digest
        located = self.mirrors.locate(ref)
        path = f"{located.repository}/manifests/{located.tag or 'latest'}"
        response = self._ask("HEAD", located, path, ref)
        if response.status_code == requests.codes.ok and "Docker-Content-Digest" not in response.headers:
            # The header is optional in the specification; the digest is that of the body.
            response = self._ask("GET", located, path, ref)
        if response.status_code == requests.codes.ok:
            text = response.headers.get("Docker-Content-Digest")
            return Digest.from_str(text) if text else _digest_of(response.content)
        raise _refusal(response, ref, located)

    def _ask(self, method: str, located: ImageRef, path: str, wanted: ImageRef) -> requests.Response:
        host = _HUB_HOST if located.registry == DOCKER_HUB else located.registry
        url = f"{_scheme(host)}://{host}/v2/{path}"
        scope = (located.registry, located.repository)
        try:
            headers = {"Accept": ", ".join(MANIFEST_TYPES)}
            if scope in self._authorization:
                headers["Authorization"] = self._authorization[scope]
            response = self._session.request(method, url, headers=headers, auth=_as_it_is)
            if response.status_code == requests.codes.unauthorized:
                self._authorization[scope] = self._authorize(response, located)
                headers["Authorization"] = self._authorization[scope]
                response = self._session.request(method, url, headers=headers, auth=_as_it_is)
        except requests.RequestException as error:
            raise RegistryError(
                f"cannot reach the registry {located.registry} for {_naming(wanted, located)}: {network.reason(error)}",
                hint="check the name and the network; --mirror or [mirrors] names another registry, "
                "SSL_CERT_FILE the CA bundle to trust",
            ) from error
        return response

    def _authorize(self, response: requests.Response, located: ImageRef) -> str:
        """Return the Authorization header that the registry's challenge asks for."""
        challenge = response.headers.get("WWW-Authenticate", "")
        credentials = _credentials(located.registry)
        if challenge.lower().startswith("basic"):
            if not credentials:
                raise RegistryError(f"{located.registry} wants a password", hint=f"docker login {located.registry}")
            return "Basic " + base64.b64encode(":".join(credentials).encode()).decode()
        asked = {match["key"]: match["value"] for match in _CHALLENGE.finditer(challenge)}
        if "realm" not in asked:
            raise RegistryError(f"{located.registry} refuses without saying what it wants ({response.status_code})")
        query = {"service": asked.get("service", ""), "scope": f"repository:{located.repository}:pull"}
        answer = self._session.get(asked["realm"], params=query, auth=credentials)
        if not answer.ok:
            raise RegistryError(
                f"{located.registry} gives no token for {located.repository}: {answer.status_code} {answer.reason}",
                hint=f"docker login {located.registry}",
            )
        body = answer.json()
        return f"Bearer {body.get('token') or body.get('access_token')}"


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keep requests from putting a netrc entry over the Authorization header."""
    return request


def _digest_of(content: bytes) -> Digest:
    import hashlib  # noqa: PLC0415

    return Digest(algorithm="sha256", hex=hashlib.sha256(content).hexdigest())


def _naming(wanted: ImageRef, located: ImageRef) -> str:
    return str(wanted) if located == wanted else f"{wanted} (mirror: {located})"


def _refusal(response: requests.Response, wanted: ImageRef, located: ImageRef) -> BuilderError:
    name = _naming(wanted, located)
    if response.status_code == requests.codes.not_found:
        return RegistryError(f"no such image: {name}", hint="check its name and tag in the matrix")
    if response.status_code in {requests.codes.unauthorized, requests.codes.forbidden}:
        return RegistryError(
            f"{located.registry} does not let this user read {name}: {response.status_code} {response.reason}",
            hint=f"docker login {located.registry}; an image that does not exist may look like this too",
        )
    return RegistryError(
        f"{located.registry} answers {response.status_code} {response.reason} for {name}",
        hint="try again later",
    )


def _scheme(host: str) -> str:
    name = host.rpartition(":")[0] or host
    return "http" if name in {"localhost", "127.0.0.1", "[::1]"} else "https"


def _credentials(registry: str) -> tuple[str, str] | None:
    """User name and password for the registry, from Docker's config file or the helper that it names."""
    config = _docker_config()
    key = _HUB_CONFIG_KEY if registry == DOCKER_HUB else registry
    helper = config.get("credHelpers", {}).get(registry) or config.get("credsStore")
    if helper:
        answer = run([f"docker-credential-{helper}", "get"], stdin=key)
        if answer.returncode == 0:
            found = json.loads(answer.stdout)
            return found["Username"], found["Secret"]
    auths = config.get("auths", {})
    for name in (key, f"https://{registry}", f"https://{registry}/v2/"):
        encoded = auths.get(name, {}).get("auth")
        if encoded:
            user, _, password = base64.b64decode(encoded).decode().partition(":")
            return user, password
    return None


def _docker_config() -> Mapping[str, Any]:
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    path = folder / "config.json"
    if not path.is_file():
        return {}
    try:
        config: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RegistryError(f"cannot read {path}: {error}", hint="mend it, or log in anew with docker login") from error
    tables = ("auths", "credHelpers")
    if not isinstance(config, dict) or not all(isinstance(config.get(name, {}), dict) for name in tables):
        raise RegistryError(f"{path} is no config file of Docker", hint="mend it, or log in anew with docker login")
    return config
