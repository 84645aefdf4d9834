"""Manifests, indexes and image configs: the bytes that a digest names, and what they say.

The shapes are those of the OCI image specification (manifest.md, image-index.md, config.md).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from builder.contract import INDEX_TYPES, MANIFEST_TYPES
from builder.errors import RegistryError
from builder.oci.reference import Digest, is_digest
from builder.parse import Document, expect


def _digest_text(text: str) -> str:
    if not is_digest(text):
        raise ValueError(f"{text!r} is not a digest")
    return text


DigestText = Annotated[str, AfterValidator(_digest_text)]


class Descriptor(Document):
    """How a manifest or index refers to other content; `size` is in bytes."""

    digest: DigestText
    size: int = Field(ge=0)
    media_type: str = Field("", alias="mediaType")
    annotations: dict[str, str] | None = None

    @property
    def is_attestation(self) -> bool:
        """Whether an entry of an index is not an image but BuildKit's statement about one."""
        return (self.annotations or {}).get("vnd.docker.reference.type") == "attestation-manifest"


class ManifestBody(Document):
    """What a manifest says (`config`, `layers`), or an index (`manifests`)."""

    media_type: str = Field("", alias="mediaType")
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()


class ConfigSection(Document):
    """The part of an image config that containers are started with."""

    labels: dict[str, str] | None = Field(None, alias="Labels")
    entry_point: tuple[str, ...] | None = Field(None, alias="Entrypoint")


class HistoryEntry(Document):
    """One instruction of the build; an entry that is not `empty_layer` made the next layer."""

    created_by: str = ""
    empty_layer: bool = False


class ImageConfig(Document):
    """An image config; `created` is the time as RFC 3339 text, empty where it is not given."""

    config: ConfigSection | None = None
    created: str | None = None
    history: tuple[HistoryEntry, ...] | None = None

    @property
    def labels(self) -> Mapping[str, str]:
        """The image's labels."""
        return (self.config and self.config.labels) or {}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A manifest or index, byte for byte as the registry has it."""

    content: bytes
    media_type: str

    @classmethod
    def parse(cls, content: bytes, media_type: str, *, source: str) -> Manifest:
        """Take what a registry sent; raise RegistryError, which names the source, where that is not a manifest."""
        fault = RegistryError(
            f"{source}: the answer is not a manifest",
            hint="check the address: a login page or a proxy may answer there",
        )
        stated = media_type.partition(";")[0].strip()
        body = expect(ManifestBody, content, fault)
        known = stated if stated in MANIFEST_TYPES else body.media_type
        if known not in MANIFEST_TYPES:
            raise RegistryError(f"{fault.what}: its type is {stated or 'not given'}", hint=fault.hint)
        return cls(content=content, media_type=known)

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Manifest:
        """A manifest or index made here; the table has its `mediaType`."""
        return cls(content=encode_json(table), media_type=table["mediaType"])

    @cached_property
    def body(self) -> ManifestBody:
        """What it says."""
        return expect(ManifestBody, self.content, RegistryError(f"{self.digest} is not a manifest"))

    @property
    def table(self) -> Mapping[str, Any]:
        """What it says, unknown fields included."""
        table: Mapping[str, Any] = json.loads(self.content)
        return table

    @property
    def digest(self) -> Digest:
        """The digest that names it."""
        return digest_of(self.content)

    @property
    def is_index(self) -> bool:
        """Whether it lists manifests, and is not one of an image itself."""
        return self.media_type in INDEX_TYPES

    @property
    def children(self) -> tuple[Digest, ...]:
        """The manifests that an index lists, images first, then attestations; none where it is not an index."""
        entries = sorted(self.body.manifests, key=lambda entry: entry.is_attestation) if self.is_index else ()
        return tuple(Digest.from_str(entry.digest) for entry in entries)


def digest_of(content: bytes) -> Digest:
    """Return the SHA-256 digest of the bytes."""
    return Digest(algorithm="sha256", hex=hashlib.sha256(content).hexdigest())


def descriptor(content: bytes) -> dict[str, Any]:
    """The digest and the size in bytes by which manifests refer to the content."""
    return {"digest": str(digest_of(content)), "size": len(content)}


def encode_json(table: Mapping[str, Any]) -> bytes:
    """The table as compact JSON: the bytes that a digest is computed from."""
    return json.dumps(table, separators=(",", ":")).encode()
