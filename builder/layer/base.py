"""The image that a cell is based on: its manifest and config, which its layers are assembled with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import Field

from builder.errors import RegistryError
from builder.layer.store import LayerStore
from builder.matrix.model import Platform
from builder.oci.manifest import Descriptor, DigestText, HistoryEntry, Manifest
from builder.oci.reference import Digest, ImageRef
from builder.oci.registry import Registries
from builder.parse import Document, parse_or_raise

_OTHER: Final = "choose another image in the matrix, or another registry"


class _Section(Document):
    """The part of a config that applies to containers, as far as builder reads or changes it."""

    env: tuple[str, ...] | None = Field(None, alias="Env")
    labels: dict[str, str] | None = Field(None, alias="Labels")


class _RootFs(Document):
    """The layers of an image, each by the digest of its plain tar."""

    diff_ids: tuple[DigestText, ...]


class _Config(Document):
    """An image config (config.md of the OCI image specification), as far as builder reads or changes it."""

    rootfs: _RootFs
    architecture: str = ""
    config: _Section | None = None
    history: tuple[HistoryEntry, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class BaseImage:
    """An image for one platform, at the reference that it is fetched from; `config` is raw JSON."""

    ref: ImageRef
    manifest: Manifest
    config_bytes: bytes

    @property
    def config(self) -> Mapping[str, Any]:
        """All fields of the config, unknown ones included."""
        config: Mapping[str, Any] = json.loads(self.config_bytes)
        return config

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """Its layers, the lowest first."""
        return self.manifest.body.layers

    @property
    def diff_ids(self) -> list[str]:
        """The digests of its layers' plain tars."""
        return list((self.config.get("rootfs") or {}).get("diff_ids") or ())

    @property
    def environment(self) -> dict[str, str]:
        """The variables that its config sets."""
        pairs = (self.config.get("config") or {}).get("Env") or ()
        return dict(pair.split("=", 1) for pair in pairs if "=" in pair)

    @property
    def interpreter(self) -> str:
        """What identifies its Python: the exact version, as official images tell it, or else the image itself.

        Red Hat's images tell only the minor version.
        """
        version = self.environment.get("PYTHON_VERSION", "")
        return version if version.count(".") > 1 else str(self.manifest.digest)


def fetch_image(ref: ImageRef, platform: Platform, registries: Registries, store: LayerStore) -> BaseImage:
    """Fetch the image of a pinned reference for a platform, from its mirror; from the store if it was fetched before.

    Raises RegistryError if there is no image for the platform.
    """
    if ref.digest is None:
        raise ValueError(f"{ref} is not pinned")
    located = registries.mirrors.locate(ref).without_tag()
    manifest = _manifest(located.with_digest(ref.digest), registries, store)
    if manifest.is_index:
        manifest = _manifest(located.with_digest(_choose(manifest, ref, platform)), registries, store)
    if manifest.body.config is None:
        raise RegistryError(f"{ref} is not an image: its manifest has no config")
    digest = Digest.from_str(manifest.body.config.digest)
    config = store.read(digest) or store.write(registries.fetch_blob(located, digest))
    fault = RegistryError(f"{ref.familiar} is not an image that can be built on", hint=_OTHER)
    parsed = parse_or_raise(_Config, config, fault)
    if parsed.architecture not in {"", platform.architecture}:
        what = f"{ref.familiar} has an image for linux/{parsed.architecture} alone, not for {platform}"
        raise RegistryError(what, hint="choose another base or platform")
    if len(parsed.rootfs.diff_ids) != len(manifest.body.layers):
        raise RegistryError(f"{fault.what}: its config and its manifest have different layers", hint=_OTHER)
    if not all(layer.media_type for layer in manifest.body.layers):
        raise RegistryError(f"{fault.what}: a layer has no media type", hint=_OTHER)
    return BaseImage(ref=located, manifest=manifest, config_bytes=config)


def _manifest(ref: ImageRef, registries: Registries, store: LayerStore) -> Manifest:
    if ref.digest and (content := store.read(ref.digest)):
        return Manifest.parse(content, "", source="the store")
    manifest = registries.fetch_manifest(ref)
    if manifest is None:
        raise RegistryError(f"no such image: {ref}", hint="check its name and tag in the matrix")
    store.write(manifest.content)
    return manifest


def _choose(index: Manifest, ref: ImageRef, platform: Platform) -> Digest:
    if digest := index.child_for(platform.architecture):
        return digest
    raise RegistryError(f"{ref.familiar} has no image for {platform}", hint="choose another base or platform")
