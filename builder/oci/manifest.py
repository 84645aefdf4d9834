"""Manifests, indexes and image configs: their bytes, which a digest names, and their fields.

The fields are those of the OCI image specification (manifest.md, image-index.md, config.md).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from builder.contract import INDEX_TYPES, MANIFEST_TYPES
from builder.errors import RegistryError
from builder.oci.reference import Digest, is_digest
from builder.parse import Document, parse_or_raise

LARGEST_BLOB: Final = 64 << 30  # bytes; registries take less


def _digest_text(text: str) -> str:
    if not is_digest(text):
        raise ValueError(f"{text!r} is not a digest")
    return text


DigestText = Annotated[str, AfterValidator(_digest_text)]


class PlatformBody(Document):
    """The platform of an index's entry (image-index.md)."""

    os: str = ""
    architecture: str = ""


class Descriptor(Document):
    """A reference from a manifest or index to other content (descriptor.md); `size` is in bytes."""

    digest: DigestText
    size: int = Field(ge=0, le=LARGEST_BLOB)
    media_type: str = Field("", alias="mediaType")
    annotations: dict[str, str] | None = None
    platform: PlatformBody | None = None

    @property
    def is_attestation(self) -> bool:
        """Whether an entry of an index is BuildKit's attestation of an image, not an image."""
        return (self.annotations or {}).get("vnd.docker.reference.type") == "attestation-manifest"


class ManifestBody(Document):
    """The fields of a manifest (`config`, `layers`) or of an index (`manifests`)."""

    media_type: str = Field("", alias="mediaType")
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    annotations: dict[str, str] | None = None


class ConfigSection(Document):
    """The part of an image config that applies to containers."""

    labels: dict[str, str] | None = Field(None, alias="Labels")
    entry_point: tuple[str, ...] | None = Field(None, alias="Entrypoint")
    variables: tuple[str, ...] | None = Field(None, alias="Env")
    user: str | None = Field(None, alias="User")


class HistoryEntry(Document):
    """One instruction of the build; an entry that is not an `empty_layer` created the next layer."""

    created_by: str = ""
    empty_layer: bool = False


class ImageConfig(Document):
    """An image config. `created` is a time in RFC 3339, or None."""

    config: ConfigSection | None = None
    created: str | None = None
    history: tuple[HistoryEntry, ...] | None = None

    @property
    def labels(self) -> Mapping[str, str]:
        """The image's labels."""
        return (self.config and self.config.labels) or {}

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that it sets."""
        pairs = (self.config and self.config.variables) or ()
        return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A manifest or index, byte for byte as the registry stores it."""

    content: bytes
    media_type: str

    @classmethod
    def parse(cls, content: bytes, media_type: str, *, source: str) -> Manifest:
        """Parse a registry's answer; raise RegistryError, which names the source, if it is not a manifest."""
        fault = RegistryError(
            f"{source}: the answer is not a manifest",
            hint="check the address: a login page or a proxy may have answered",
        )
        body = parse_or_raise(ManifestBody, content, fault)
        stated = media_type if media_type in MANIFEST_TYPES else body.media_type
        if stated not in MANIFEST_TYPES:
            raise RegistryError(f"{fault.what}: its type is {media_type or 'missing'}", hint=fault.hint)
        if body.media_type not in {"", stated}:
            raise RegistryError(f"{fault.what}: it has the type {body.media_type}, the answer {stated}")
        needed = "manifests" if stated in INDEX_TYPES else "config"
        if needed not in body.model_fields_set:
            raise RegistryError(f"{fault.what}: it has no {needed!r}", hint=fault.hint)
        return cls(content=content, media_type=stated)

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Manifest:
        """Make a manifest or index from its fields, `mediaType` among them."""
        return cls(content=encode_json(table), media_type=table["mediaType"])

    @cached_property
    def body(self) -> ManifestBody:
        """Its fields; raise RegistryError if they have the wrong types."""
        return parse_or_raise(ManifestBody, self.content, RegistryError(f"{self.digest} is not a manifest"))

    @property
    def table(self) -> Mapping[str, Any]:
        """All its fields as raw JSON, unknown ones included."""
        table: Mapping[str, Any] = json.loads(self.content)
        return table

    @property
    def digest(self) -> Digest:
        """The digest of its bytes."""
        return digest_of(self.content)

    @property
    def is_index(self) -> bool:
        """Whether it lists manifests instead of describing an image."""
        return self.media_type in INDEX_TYPES

    def child_for(self, architecture: str) -> Digest | None:
        """The digest of the image that an index lists for linux on an architecture (as in Go's GOARCH), if any."""
        for entry in self.body.manifests:
            if entry.platform and (entry.platform.os, entry.platform.architecture) == ("linux", architecture):
                return Digest.from_str(entry.digest)
        return None

    @property
    def children(self) -> tuple[Digest, ...]:
        """The digests of the manifests that an index lists, images before attestations; empty for an image."""
        entries = sorted(self.body.manifests, key=lambda entry: entry.is_attestation) if self.is_index else ()
        return tuple(Digest.from_str(entry.digest) for entry in entries)


def digest_of(content: bytes) -> Digest:
    """Return the SHA-256 digest of the bytes."""
    return Digest(algorithm="sha256", hex=hashlib.sha256(content).hexdigest())


def descriptor(content: bytes) -> dict[str, Any]:
    """Return the `digest` and `size` (in bytes) with which a manifest refers to the content."""
    return {"digest": str(digest_of(content)), "size": len(content)}


def encode_json(table: Mapping[str, Any]) -> bytes:
    """Encode a table as compact JSON, the bytes that its digest is computed from."""
    return json.dumps(table, separators=(",", ":")).encode()
