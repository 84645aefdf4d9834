"""Pushes a verified image, which becomes a `PublishedImage`: its layers, its manifest and its immutable tag.

An image of layers needs only those that the repository lacks; the others are mounted from where they are, or already
there. One that the engine saved is read from its archive; if it has attestations, its tag names an index, and the
manifests in it are uploaded first, by digest.

builder uploads the layers itself instead of leaving that to the engine: with its own credentials, CA bundle and
retries, and with the compression from the matrix, whatever image store the engine has.
"""

from __future__ import annotations

import gzip
import io
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

import zstandard

from builder.contract import (
    CONFIG_TYPE,
    EMPTY_TYPE,
    INDEX_TYPE,
    LAYER_ARTIFACT,
    LAYER_KEY,
    LAYER_TYPE,
    MANIFEST_TYPE,
    PUSHED_ANNOTATION,
)
from builder.image.render import RenderedImage
from builder.layer.assemble import AssembledImage
from builder.layer.blobs import Blobs, BlobSource
from builder.layer.find import LayerRepositories
from builder.layer.plan import Compression
from builder.layer.store import LayerStore, digest_of_file
from builder.oci.archive import ArchiveLayer, ImageArchive
from builder.oci.manifest import Manifest, descriptor, digest_of
from builder.oci.reference import Digest, ImageRef
from builder.oci.registry import Registries
from builder.release.immutable import put_immutable, with_checks, with_time
from builder.release.sent import OnSent, Sent
from builder.verify.record import EngineImage
from builder.verify.runner import VerifiedImage

EMPTY_CONFIG: Final = b"{}"
_ZSTD_LEVEL: Final = 3  # 5 to 25 % smaller than gzip, and much faster in both directions
_GZIP_LEVEL: Final = 6


Publishable = VerifiedImage | EngineImage


@dataclass(frozen=True, kw_only=True)
class PublishedImage:
    """An image that this run pushed under its immutable tag. Only `push` constructs it."""

    image: Publishable
    digest: Digest

    @property
    def rendered(self) -> RenderedImage:
        """The rendered image that it was built from."""
        return self.image.rendered


@dataclass(frozen=True, kw_only=True)
class _Blob:
    """Content to upload: its digest, its size in bytes, and a function that opens it again for each attempt."""

    digest: Digest
    size: int
    media_type: str
    opened: Callable[[], IO[bytes]]

    @property
    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}


Content = AssembledImage | Path


def push(
    image: Publishable, content: Content, registries: Registries, compression: Compression, on_sent: OnSent
) -> PublishedImage:
    """Upload the image, and its immutable tag last; an immutable tag that exists is never moved.

    `content` is the image as it was assembled, or the path of the archive in which the engine saved it. If another
    machine has pushed an image with the same key in the meantime, that image is used. Raises PublishError if the tag
    names an image with another key, and RegistryError if the registry fails.
    """
    manifest = _put_content(content, image.rendered.immutable_tag, registries, compression, on_sent)
    manifest = with_checks(manifest, image.checks)
    return PublishedImage(image=image, digest=_put_tag(image.rendered, manifest, registries))


def push_unverified(
    rendered: RenderedImage, content: Content, registries: Registries, compression: Compression, on_sent: OnSent
) -> Digest:
    """Upload an image that is still to be verified, under a tag that says so; return the digest.

    It is the digest that the image has under its immutable tag, if it passes. Raises RegistryError.
    """
    manifest = with_time(_put_content(content, rendered.unverified_tag, registries, compression, on_sent))
    registries.put_manifest(rendered.unverified_tag, manifest)
    return manifest.digest


def _put_content(
    content: Content, ref: ImageRef, registries: Registries, compression: Compression, on_sent: OnSent
) -> Manifest:
    """Upload all of an image but what its tag names; return that."""
    if isinstance(content, AssembledImage):
        put_blobs(content, ref, registries, on_sent)
        return content.manifest
    return _push_archive(content, ref, registries, compression, on_sent)


def put_blobs(image: AssembledImage, ref: ImageRef, registries: Registries, on_sent: OnSent) -> None:
    """Upload or mount the blobs of an image that the repository lacks, several at a time."""
    sizes = {layer.digest: layer.size for layer in image.manifest.body.layers}
    sent = Sent(sizes, on_sent)

    def put(text: str) -> None:
        digest = Digest.from_str(text)
        origin = image.blobs.origins.get(text)
        registries.put_blob(
            ref, digest, lambda: image.open_blob(digest), source=origin.repository if origin else None,
            on_bytes=sent.counter(text),
        )  # fmt: skip
        sent.done(text)

    registries.map(put, sizes)
    registries.put_blob(ref, digest_of(image.config_bytes), lambda: io.BytesIO(image.config_bytes))


def put_layers(image: AssembledImage, repositories: LayerRepositories, registries: Registries) -> None:
    """Give layers tags of their own, by which other cells and projects find them.

    These are the layers that this run made, and those that an earlier one made on this machine without pushing them.
    """
    made = {layer.key for layer in image.made}
    entries = [layer for layer in _layers_with_key(image.manifest) if layer["digest"] not in image.blobs.origins]
    _put_layer_tags(entries, made, image.blobs, repositories, registries)


def put_layers_of(
    manifest: Manifest, store: LayerStore, repositories: LayerRepositories, registries: Registries
) -> None:
    """Give the layers of an image in the registry tags of their own, those that have none."""
    entries = _layers_with_key(manifest)
    origins = {each["digest"]: BlobSource(repository=repositories.images, size=each["size"]) for each in entries}
    blobs = Blobs(store=store, registries=registries, origins=origins)
    _put_layer_tags(entries, (), blobs, repositories, registries)


def _layers_with_key(manifest: Manifest) -> list[Mapping[str, Any]]:
    return [layer for layer in manifest.table.get("layers", ()) if LAYER_KEY in (layer.get("annotations") or {})]


def _put_layer_tags(
    entries: Sequence[Mapping[str, Any]],
    made: Collection[str],
    blobs: Blobs,
    repositories: LayerRepositories,
    registries: Registries,
) -> None:
    """Tag the layers; of those that were not made just now, the ones without a tag."""

    def put(entry: Mapping[str, Any]) -> None:
        key = entry["annotations"][LAYER_KEY]
        tag = repositories.tag(key)
        if key not in made and any(map(registries.fetch_digest, repositories.tags(key))):
            return
        digest = Digest.from_str(entry["digest"])
        registries.put_blob(tag, digest, lambda: blobs.open(digest), source=repositories.images)
        registries.put_manifest(tag, layer_manifest(entry))

    if entries:
        registries.put_blob(repositories.layers, digest_of(EMPTY_CONFIG), lambda: io.BytesIO(EMPTY_CONFIG))
        registries.map(put, entries)


def layer_manifest(entry: Mapping[str, Any]) -> Manifest:
    """A manifest of one layer, which keeps it in the registry ("Guidelines for Artifact Usage" in manifest.md)."""
    return Manifest.of(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": LAYER_ARTIFACT,
            "config": {"mediaType": EMPTY_TYPE, **descriptor(EMPTY_CONFIG)},
            "layers": [entry],
            "annotations": {PUSHED_ANNOTATION: datetime.now(timezone.utc).isoformat("T", "seconds")},
        }
    )


def _push_archive(
    path: Path, ref: ImageRef, registries: Registries, compression: Compression, on_sent: OnSent
) -> Manifest:
    """Upload what an archive has; return the manifest or index that gets the tag."""
    with tempfile.TemporaryDirectory(prefix="builder-") as scratch, ImageArchive(path) as archive:
        config = _blob_of(archive.config_bytes, CONFIG_TYPE)
        layers = [
            _layer(archive, layer, compression, Path(scratch, f"layer-{n}")) for n, layer in enumerate(archive.layers)
        ]
        blobs = {str(blob.digest): blob for blob in [*layers, config]}
        sent = Sent({text: blob.size for text, blob in blobs.items()}, on_sent)
        for text, blob in blobs.items():
            registries.put_blob(ref, blob.digest, blob.opened, on_bytes=sent.counter(text))
            sent.done(text)
        manifest = _manifest(config, layers)
        if archive.attestations:
            manifest = _push_attestations(archive, manifest, layers, ref, registries)
    return manifest


def _push_attestations(
    archive: ImageArchive, image: Manifest, layers: list[_Blob], ref: ImageRef, registries: Registries
) -> Manifest:
    """Upload the image's manifest and its attestations by digest; return the index, which gets the tag."""
    changes = {old.digest: new.descriptor for old, new in zip(archive.layers, layers, strict=True)}
    changes[archive.entry["digest"]] = {"mediaType": image.media_type, **descriptor(image.content)}
    attestations = [attestation.rewritten(changes) for attestation in archive.attestations]
    for attestation in attestations:
        for digest, content in attestation.blobs.items():
            registries.put_blob(ref, Digest.from_str(digest), partial(io.BytesIO, content))
    for manifest in (image, *(attestation.manifest for attestation in attestations)):
        registries.put_manifest(ref.with_digest(manifest.digest).without_tag(), manifest)
    entries = [
        {**archive.entry, **changes[archive.entry["digest"]]},
        *(attestation.entry for attestation in attestations),
    ]
    return Manifest.of({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries})


def _put_tag(rendered: RenderedImage, manifest: Manifest, registries: Registries) -> Digest:
    """Upload the manifest under the immutable tag unless the tag exists; return the digest that the tag names."""
    return put_immutable(rendered.immutable_tag, rendered.key, manifest, registries)


def _manifest(config: _Blob, layers: list[_Blob]) -> Manifest:
    return Manifest.of(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": config.descriptor,
            "layers": [layer.descriptor for layer in layers],
        }
    )


def _blob_of(content: bytes, media_type: str) -> _Blob:
    return _Blob(
        digest=digest_of(content), size=len(content), media_type=media_type, opened=lambda: io.BytesIO(content)
    )


def _layer(archive: ImageArchive, layer: ArchiveLayer, compression: Compression, path: Path) -> _Blob:
    """The layer with the requested compression: as stored in the archive if it has that, else compressed again."""
    is_compressed = layer.compression == compression
    with archive.open_raw(layer) if is_compressed else archive.open_plain(layer) as content, path.open("wb") as out:
        if is_compressed:
            shutil.copyfileobj(content, out, 1 << 20)
        elif compression == "zstd":
            zstandard.ZstdCompressor(level=_ZSTD_LEVEL, threads=-1).copy_stream(content, out)
        else:
            with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=_GZIP_LEVEL, mtime=0, filename="") as packed:
                shutil.copyfileobj(content, packed, 1 << 20)
    return _Blob(
        digest=digest_of_file(path),
        size=path.stat().st_size,
        media_type=f"{LAYER_TYPE}+{compression}",
        opened=lambda: path.open("rb"),
    )
