"""Registries: digests, manifests as the bytes they are, blobs, tags, deletion.

The protocol is the OCI distribution specification's. Underneath is requests (urllib3), as in Docker's own SDK, and no
registry client: those for Python (oras, dxf) hand manifests out parsed, and a digest is one of bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import IO, TypeVar
from urllib.parse import urljoin

import requests

from builder import http
from builder.errors import RegistryError
from builder.oci.manifest import ImageConfig, Manifest, digest_of
from builder.oci.reference import Digest, ImageRef, Mirrors
from builder.oci.transport import Target, Transport, Upload, check_response
from builder.parse import Document, expect

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class _TagList(Document):
    """The answer to `tags/list`."""

    tags: tuple[str, ...] | None = None


class Registries:
    """The registries that a run asks, with one connection pool and one token for each repository and kind of access.

    `resolve` goes through the mirrors; everything else goes to where the reference says. `insecure` registries are
    asked over plain HTTP, as those on this machine always are. `stopped` ends whatever they are waited for.
    """

    def __init__(
        self, mirrors: Mirrors, *, insecure: Iterable[str] = (), stopped: threading.Event | None = None
    ) -> None:
        self.mirrors = mirrors
        self._transport = Transport(insecure=insecure, stopped=stopped or threading.Event())

    def resolve_all(self, refs: Iterable[ImageRef]) -> dict[ImageRef, Digest]:
        """Return the digest of each reference; one request for each, several at a time."""
        refs = list(refs)
        return dict(zip(refs, self.map(self.resolve, refs), strict=True))

    def map(self, function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
        """Call a function that asks these registries for each item, several at a time; return the results in order."""
        return http.map_concurrently(function, items, self._transport.stopped)

    def resolve(self, ref: ImageRef) -> Digest:
        """Return the digest of the manifest, or index, that the reference names now.

        Raises RegistryError that names the reference, and the mirror in use, where there is none or no answer.
        """
        if ref.digest:
            return ref.digest
        target = Target(ref=self.mirrors.locate(ref), original=ref)
        digest = self._find(target)
        if digest is None:
            raise RegistryError(f"no such image: {target}", hint="check its name and tag in the matrix")
        return digest

    def fetch_digest(self, ref: ImageRef) -> Digest | None:
        """Return the digest that a tag names, or None where there is no such tag. One request."""
        return self._find(Target(ref=ref, original=ref))

    def _find(self, target: Target) -> Digest | None:
        path = f"manifests/{target.ref.tag or 'latest'}"
        response = self._transport.send("HEAD", target, path)
        if response.ok and "Docker-Content-Digest" not in response.headers:
            # The header is optional in the specification; the digest is that of the body.
            response = self._transport.send("GET", target, path)
        if response.status_code == requests.codes.not_found:
            return None
        check_response(response, target, "read")
        text = response.headers.get("Docker-Content-Digest")
        return Digest.from_str(text) if text else digest_of(response.content)

    def fetch_manifest(self, ref: ImageRef) -> Manifest | None:
        """Return the manifest that a tag or digest names, or None; raise where it is not the digest target for."""
        target = Target(ref=ref, original=ref)
        response = self._transport.send("GET", target, f"manifests/{ref.digest or ref.tag}")
        if response.status_code == requests.codes.not_found:
            return None
        check_response(response, target, "read")
        manifest = Manifest.parse(
            response.content, response.headers.get("Content-Type", ""), source=f"{ref.registry}, asked for {target}"
        )
        if ref.digest and manifest.digest != ref.digest:
            raise RegistryError(f"{ref.registry} sent something else for {ref}: {manifest.digest}")
        return manifest

    def put_manifest(self, ref: ImageRef, manifest: Manifest) -> None:
        """Put a manifest under the reference's tag, or its digest; raise unless the registry has these very bytes."""
        target = Target(ref=ref, original=ref)
        headers = {"Content-Type": manifest.media_type}
        response = self._transport.send(
            "PUT", target, f"manifests/{ref.tag or manifest.digest}", action="push", headers=headers,
            body=lambda: manifest.content,
        )  # fmt: skip
        check_response(response, target, "write")
        named = response.headers.get("Docker-Content-Digest")
        if named and named != str(manifest.digest):
            raise RegistryError(f"{ref.registry} changed the manifest of {ref}: {named}, sent {manifest.digest}")

    def has_blob(self, ref: ImageRef, digest: Digest) -> bool:
        """Whether the reference's repository has the blob."""
        target = Target(ref=ref, original=ref)
        response = self._transport.send("HEAD", target, f"blobs/{digest}")
        if response.status_code == requests.codes.not_found:
            return False
        check_response(response, target, "read")
        return True

    def fetch_blob(self, ref: ImageRef, digest: Digest) -> bytes:
        """Return a blob that fits in memory, such as a config."""
        target = Target(ref=ref, original=ref)
        response = self._transport.send("GET", target, f"blobs/{digest}")
        check_response(response, target, "read")
        if digest_of(response.content) != digest:
            raise RegistryError(f"{ref.registry} sent something else for {digest} of {ref.name}")
        return response.content

    def fetch_config(self, ref: ImageRef, manifest: Manifest) -> ImageConfig:
        """Return the config of an image whose manifest is known; an empty one where the manifest names none."""
        if manifest.body.config is None:
            return ImageConfig()
        digest = Digest.from_str(manifest.body.config.digest)
        fault = RegistryError(f"{digest} of {ref.name} is not an image config")
        return expect(ImageConfig, self.fetch_blob(ref, digest), fault)

    def put_blob(self, ref: ImageRef, digest: Digest, opened: Callable[[], IO[bytes]]) -> None:
        """Upload a blob unless it is there; `opened` gives its content anew for each attempt."""
        if self.has_blob(ref, digest):
            return
        target = Target(ref=ref, original=ref)
        check_response(self._transport.retry(target, lambda: self._upload(target, digest, opened)), target, "write")

    def _upload(self, target: Target, digest: Digest, opened: Callable[[], IO[bytes]]) -> requests.Response:
        """One attempt: open an upload, send all of it (the specification's POST, then PUT)."""
        begun = self._transport.send_once("POST", target, "blobs/uploads/", action="push")
        if begun.status_code != requests.codes.accepted:
            return begun
        where = urljoin(begun.url, begun.headers["Location"])
        where += f"{'&' if '?' in where else '?'}digest={digest}"
        headers = {"Content-Type": "application/octet-stream"}
        return self._transport.send_once(
            "PUT", target, where, action="push", headers=headers, body=lambda: self._sent(opened)
        )

    def _sent(self, opened: Callable[[], IO[bytes]]) -> Upload:
        return Upload(opened(), self._transport.stopped)

    def fetch_tags(self, ref: ImageRef) -> tuple[str, ...]:
        """Return all tags of the reference's repository; none where there is no such repository."""
        target = Target(ref=ref, original=ref)
        found: list[str] = []
        path = "tags/list?n=1000"
        while path:
            response = self._transport.send("GET", target, path)
            if response.status_code == requests.codes.not_found:
                return ()
            check_response(response, target, "read")
            fault = RegistryError(f"{ref.registry}, asked for the tags of {ref.name}, did not send a list of tags")
            found += expect(_TagList, response.content, fault).tags or ()
            path = urljoin(response.url, response.links["next"]["url"]) if "next" in response.links else ""
        return tuple(sorted(found))

    def delete(self, ref: ImageRef) -> None:
        """Delete a manifest by its digest, and with it every tag that names it.

        Raises RegistryError where the registry does not offer that.
        """
        target = Target(ref=ref.without_tag(), original=ref)
        response = self._transport.send("DELETE", target, f"manifests/{ref.digest}", action="delete")
        if response.status_code == requests.codes.method_not_allowed:
            raise RegistryError(
                f"{ref.registry} does not delete", hint="turn deletion on there, or use its own clean-up policies"
            )
        if response.status_code != requests.codes.not_found:
            check_response(response, target, "delete")
