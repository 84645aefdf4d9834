"""A client for registries: digests, manifests, blobs, tags, deletion.

The protocol is the OCI distribution specification. The client is built on requests, as Docker's own SDK is: existing
registry clients for Python (oras, dxf) return parsed manifests, but a digest is computed from bytes.
"""

from __future__ import annotations

import difflib
import hashlib
import threading
from collections.abc import Callable, Iterable
from typing import IO, Annotated, Final, TypeVar

import requests
from pydantic import StringConstraints

from builder import http
from builder.contract import MANIFEST_TYPES
from builder.errors import InterruptedRun, RegistryError
from builder.http import ANSWER_BYTES
from builder.oci.manifest import ImageConfig, Manifest, digest_of
from builder.oci.reference import TAG_PATTERN, Digest, ImageRef, Mirrors, is_digest
from builder.oci.target import Target
from builder.oci.transport import Transport, Upload, check_response, media_type_of
from builder.parse import Document, parse_or_raise

_MOST_PAGES: Final = 1000  # of tags, with a thousand or less on each
_MOST_TAGS: Final = 1_000_000
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class _TagList(Document):
    """The answer to `tags/list` (distribution specification, "Listing Tags")."""

    tags: tuple[Annotated[str, StringConstraints(pattern=f"^{TAG_PATTERN}$")], ...] | None


class Registries:
    """The registries of a run. They share a connection pool, and a token per repository and kind of access.

    `resolve` uses the mirrors; all other requests go to the registry in the reference. Registries in `insecure`, and
    those on this machine, are reached over plain HTTP. `stopped` ends every request. Methods raise RegistryError if a
    registry cannot be reached, refuses, or sends a malformed answer.
    """

    def __init__(
        self, mirrors: Mirrors, *, insecure: Iterable[str] = (), stopped: threading.Event | None = None
    ) -> None:
        self.mirrors = mirrors
        self._transport = Transport(insecure=insecure, stopped=stopped or threading.Event())

    @property
    def stopped(self) -> threading.Event:
        """Ends every request when it is set."""
        return self._transport.stopped

    def pause(self, seconds: float) -> None:
        """Wait; raise InterruptedRun if the run is stopped."""
        if self._transport.stopped.wait(seconds):
            raise InterruptedRun("interrupted")

    def resolve_all(self, refs: Iterable[ImageRef]) -> dict[ImageRef, Digest]:
        """Fetch the digest of each reference; one request each, several at a time."""
        refs = list(refs)
        return dict(zip(refs, self.map(self.resolve, refs), strict=True))

    def map(self, function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
        """Call a function that sends requests for each item, several at a time; return the results in order."""
        return http.map_concurrently(function, items, self._transport.stopped)

    def resolve(self, ref: ImageRef) -> Digest:
        """Fetch the digest of the manifest or index that the reference names now.

        Raises RegistryError, which names the reference and the mirror in use, if there is no such image.
        """
        if ref.digest:
            return ref.digest
        target = Target(ref=self.mirrors.locate(ref), original=ref)
        digest = self._fetch_digest(target)
        if digest is None:
            raise RegistryError(f"no such image: {target}", hint=self._hint_for(target.ref))
        return digest

    def _hint_for(self, ref: ImageRef) -> str:
        """What to do about an image that does not exist: the tag that its repository has and that resembles it."""
        try:
            tags = self.fetch_tags(ref)
        except RegistryError:
            tags = ()
        close = difflib.get_close_matches(str(ref.tag), tags, n=1, cutoff=0.7)
        return f"no such tag; did you mean {close[0]!r}?" if close else "check its name and tag in the matrix"

    def fetch_digest(self, ref: ImageRef) -> Digest | None:
        """Fetch the digest that a tag names; None if there is no such tag. One request."""
        return self._fetch_digest(Target(ref=ref, original=ref))

    def _fetch_digest(self, target: Target) -> Digest | None:
        path = f"manifests/{target.ref.tag or 'latest'}"
        response = self._transport.send("HEAD", target, path)
        if response.status_code == requests.codes.not_found:
            return None
        check_response(response, target, "read")
        if "Docker-Content-Digest" in response.headers and media_type_of(response) in MANIFEST_TYPES:
            return self._stated_digest(response, target)
        # The specification makes the header optional, and a portal does not send it: the bytes decide.
        manifest = self._fetch_manifest(target, path)
        return manifest.digest if manifest else None

    def _stated_digest(self, response: requests.Response, target: Target) -> Digest:
        text = response.headers["Docker-Content-Digest"]
        if not is_digest(text):
            raise RegistryError(f"{target.ref.registry} sent {text!r} as the digest of {target}")
        return Digest.from_str(text)

    def fetch_manifest(self, ref: ImageRef) -> Manifest | None:
        """Fetch the manifest that a tag or digest names; None if there is none. Its bytes must match the digest."""
        return self._fetch_manifest(Target(ref=ref, original=ref), f"manifests/{ref.digest or ref.tag}")

    def _fetch_manifest(self, target: Target, path: str) -> Manifest | None:
        response = self._transport.send("GET", target, path)
        if response.status_code == requests.codes.not_found:
            return None
        check_response(response, target, "read")
        found = digest_of(response.content)
        if target.ref.digest not in {None, found}:
            raise RegistryError(f"{target.ref.registry} sent other content for {target}: {found}")
        return Manifest.parse(response.content, media_type_of(response), source=f"{target.ref.registry}, {target}")

    def put_manifest(self, ref: ImageRef, manifest: Manifest, *, if_absent: bool = False) -> None:
        """Upload a manifest under the reference's tag, else its digest; raise if the registry changed its bytes.

        With `if_absent`, registries that can refuse to replace what is there are asked to (RFC 9110, If-None-Match).
        """
        target = Target(ref=ref, original=ref)
        headers = {"Content-Type": manifest.media_type, **({"If-None-Match": "*"} if if_absent else {})}
        response = self._transport.send(
            "PUT", target, f"manifests/{ref.tag or manifest.digest}", action="push", headers=headers,
            body=lambda: manifest.content,
        )  # fmt: skip
        check_response(response, target, "write")
        stored = response.headers.get("Docker-Content-Digest")
        if stored and stored != str(manifest.digest):
            raise RegistryError(
                f"{ref.registry} changed the manifest of {ref}: sent {manifest.digest}, stored {stored}"
            )

    def has_blob(self, ref: ImageRef, digest: Digest) -> bool:
        """Ask whether the reference's repository has the blob."""
        target = Target(ref=ref, original=ref)
        response = self._transport.send("HEAD", target, f"blobs/{digest}")
        if response.status_code == requests.codes.not_found:
            return False
        check_response(response, target, "read")
        return True

    def fetch_blob(self, ref: ImageRef, digest: Digest, *, size: int = ANSWER_BYTES) -> bytes:
        """Fetch a blob of at most `size` bytes into memory, such as a config; its bytes must match the digest."""
        target = Target(ref=ref, original=ref)
        response = self._transport.send("GET", target, f"blobs/{digest}", limit=size)
        check_response(response, target, "read")
        if digest_of(response.content) != digest:
            raise RegistryError(f"{ref.registry} sent other content for {digest} of {ref.name}")
        return response.content

    def download_blob(self, ref: ImageRef, digest: Digest, file: IO[bytes], *, size: int) -> None:
        """Write a blob of at most `size` bytes to a file; its bytes must match the digest."""
        target = Target(ref=ref, original=ref)
        check_response(self._transport.download(target, f"blobs/{digest}", file, limit=size), target, "read")
        file.seek(0)
        hashed = hashlib.new(digest.algorithm)
        while chunk := file.read(1 << 20):
            hashed.update(chunk)
        if hashed.hexdigest() != digest.hex:
            raise RegistryError(f"{ref.registry} sent other content for {digest} of {ref.name}")

    def fetch_config(self, ref: ImageRef, manifest: Manifest) -> ImageConfig:
        """Fetch the config that a manifest names; an empty one if it names none."""
        if manifest.body.config is None:
            return ImageConfig()
        digest = Digest.from_str(manifest.body.config.digest)
        fault = RegistryError(f"{digest} of {ref.name} is not an image config")
        return parse_or_raise(ImageConfig, self.fetch_blob(ref, digest), fault)

    def put_blob(
        self,
        ref: ImageRef,
        digest: Digest,
        opened: Callable[[], IO[bytes]],
        *,
        source: ImageRef | None = None,
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Put a blob into a repository unless it is there; `opened` opens its content again for each attempt.

        If `source` is another repository of that registry which has the blob, the registry is asked to mount it.
        `on_bytes` is told how many bytes were sent so far.
        """
        if self.has_blob(ref, digest):
            return
        mounts = source and source.registry == ref.registry and source.repository != ref.repository
        target = Target(ref=ref, original=ref, source=source.repository if source and mounts else None)

        def body() -> Upload:
            return Upload(opened(), self._transport.stopped, on_bytes)

        check_response(self._transport.retry(target, lambda: self._upload(target, digest, body)), target, "write")

    def _upload(self, target: Target, digest: Digest, body: Callable[[], Upload]) -> requests.Response:
        """Mount or upload a blob once (distribution specification, "Mounting a blob", "Pushing a blob monolithically").

        A registry that does not mount begins an upload instead.
        """
        path = f"blobs/uploads/?mount={digest}&from={target.source}" if target.source else "blobs/uploads/"
        session = self._transport.send_once("POST", target, path, action="push")
        if not session.ok or (target.source and session.status_code == requests.codes.created):
            return session
        check_response(session, target, "write")
        if session.status_code != requests.codes.accepted or "Location" not in session.headers:
            raise RegistryError(f"{target.ref.registry} did not say where to upload a blob of {target.ref.name} to")
        url = self._transport.join_url(session.url, session.headers["Location"], target)
        url += f"{'&' if '?' in url else '?'}digest={digest}"
        headers = {"Content-Type": "application/octet-stream"}
        return self._transport.send_once("PUT", target, url, action="push", headers=headers, body=body)

    def fetch_tags(self, ref: ImageRef) -> tuple[str, ...]:
        """Fetch all tags of the reference's repository, sorted; none if there is no such repository."""
        target = Target(ref=ref, original=ref)
        fault = RegistryError(f"{ref.registry} did not send a list of tags for {ref.name}")
        tags: list[str] = []
        pages = ["tags/list?n=1000"]
        for page in pages:
            response = self._transport.send("GET", target, page)
            if response.status_code == requests.codes.not_found:
                return ()
            check_response(response, target, "read")
            tags += parse_or_raise(_TagList, response.content, fault).tags or ()
            if "next" in response.links:
                pages.append(self._transport.join_url(response.url, response.links["next"]["url"], target))
            if len(pages) != len(set(pages)) or len(pages) > _MOST_PAGES or len(tags) > _MOST_TAGS:
                raise RegistryError(f"{fault.what}: its pages link to each other without an end")
        return tuple(sorted(tags))

    def delete(self, ref: ImageRef) -> None:
        """Delete a manifest by its digest, and with it every tag that names it.

        Raises RegistryError if the registry does not allow deletion.
        """
        target = Target(ref=ref.without_tag(), original=ref)
        response = self._transport.send("DELETE", target, f"manifests/{ref.digest}", action="delete")
        if response.status_code == requests.codes.method_not_allowed:
            raise RegistryError(
                f"{ref.registry} does not allow deletion",
                hint="enable it there, or use the registry's own cleanup policies",
            )
        if response.status_code != requests.codes.not_found:
            check_response(response, target, "delete")
