"""`VerifiedImage` → `PublishedImage`: layers and manifest to the registry under the immutable tag, read back.

An image with attestations has an index under its tag; its manifest and theirs go before, by digest.

The layers are sent from here, not by the engine: with the credentials, the CA bundle and the patience of this program,
and compressed as the matrix says, whatever store the engine has.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, Literal

import zstandard

from builder.contract import CONFIG_TYPE, INDEX_TYPE, KEY_LABEL, LAYER_TYPE, MANIFEST_TYPE
from builder.engine.protocol import Engine
from builder.errors import PublishError, RegistryError
from builder.image.render import RenderedImage
from builder.oci.archive import ImageArchive, Layer
from builder.oci.manifest import Manifest, descriptor, digest_of
from builder.oci.reference import Digest, ImageRef
from builder.oci.registry import Registries
from builder.release.state import fetch_image_config
from builder.verify.record import EngineImage
from builder.verify.runner import VerifiedImage

Compression = Literal["gzip", "zstd"]
_ZSTD_LEVEL: Final = 3  # 5 to 25 % smaller than gzip, and much quicker both ways
_GZIP_LEVEL: Final = 6


Publishable = VerifiedImage | EngineImage


@dataclass(frozen=True, kw_only=True)
class PublishedImage:
    """An image that this run pushed under its immutable tag. `push` alone makes one."""

    image: Publishable
    digest: Digest

    @property
    def rendered(self) -> RenderedImage:
        """What the image was built from."""
        return self.image.rendered


@dataclass(frozen=True, kw_only=True)
class _Blob:
    """Something to upload: its digest and size in bytes, and how to open it anew."""

    digest: Digest
    size: int
    media_type: str
    opened: Callable[[], IO[bytes]]

    @property
    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}


def push(image: Publishable, engine: Engine, registries: Registries, compression: Compression) -> PublishedImage:
    """Send the image and put its immutable tag, last of all; a tag that is there already is never moved.

    Where another machine has put an image of the same key there meanwhile, that one is the cell's. Raises PublishError
    where it is not of this key, RegistryError where the registry fails.
    """
    ref = image.rendered.immutable_tag
    with (
        tempfile.TemporaryDirectory(prefix="builder-") as scratch,
        ImageArchive(_saved(image, engine, Path(scratch))) as archive,
    ):
        config = _bytes(archive.config_bytes, CONFIG_TYPE)
        layers = [
            _layer(archive, layer, compression, Path(scratch, f"layer-{n}")) for n, layer in enumerate(archive.layers)
        ]
        for blob in [*layers, config]:
            registries.put_blob(ref, blob.digest, blob.opened)
        manifest = _manifest(config, layers)
        if archive.attestations:
            manifest = _attested(archive, manifest, layers, ref, registries)
    return PublishedImage(image=image, digest=_put_once(image.rendered, manifest, registries))


def _saved(image: Publishable, engine: Engine, scratch: Path) -> Path:
    """The saved image: this run's, or of an earlier run's saved now."""
    if isinstance(image, VerifiedImage):
        return image.built.archive
    saved = scratch / "image.tar"
    engine.save(str(image.rendered.immutable_tag), saved)
    return saved


def _attested(
    archive: ImageArchive, image: Manifest, layers: list[_Blob], ref: ImageRef, registries: Registries
) -> Manifest:
    """Send the image's manifest and attestations, all by digest; return the index that gets the tag."""
    changes = {old.digest: new.descriptor for old, new in zip(archive.layers, layers, strict=True)}
    changes[archive.entry["digest"]] = {"mediaType": image.media_type, **descriptor(image.content)}
    told = [attestation.rewritten(changes) for attestation in archive.attestations]
    for attestation in told:
        for digest, content in attestation.blobs.items():
            registries.put_blob(ref, Digest.from_str(digest), partial(io.BytesIO, content))
    for manifest in (image, *(attestation.manifest for attestation in told)):
        registries.put_manifest(ref.with_digest(manifest.digest).without_tag(), manifest)
    entries = [{**archive.entry, **changes[archive.entry["digest"]]}, *(attestation.entry for attestation in told)]
    return Manifest.of({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries})


def _put_once(rendered: RenderedImage, manifest: Manifest, registries: Registries) -> Digest:
    """Put the immutable tag unless it is there; return what it names."""
    ref = rendered.immutable_tag
    there = registries.fetch_digest(ref)
    if there is not None and there != manifest.digest:
        if fetch_image_config(ref, registries).labels.get(KEY_LABEL) == rendered.key:
            return there
        raise PublishError(
            f"{ref.familiar} already exists but was built from different inputs: {there}, not {manifest.digest}",
            hint="another tool uses that tag: delete it, or choose another repository",
        )
    if there is None:
        registries.put_manifest(ref, manifest)
    found = registries.fetch_manifest(ref)
    if found is None or found.digest != manifest.digest:
        raise RegistryError(f"{ref.registry} does not give back what was pushed as {ref}", hint="try again")
    return manifest.digest


def _manifest(config: _Blob, layers: list[_Blob]) -> Manifest:
    return Manifest.of(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": config.descriptor,
            "layers": [layer.descriptor for layer in layers],
        }
    )


def _bytes(content: bytes, media_type: str) -> _Blob:
    return _Blob(
        digest=digest_of(content), size=len(content), media_type=media_type, opened=lambda: io.BytesIO(content)
    )


def _layer(archive: ImageArchive, layer: Layer, compression: Compression, path: Path) -> _Blob:
    """The layer as it is to be sent: as it lies in the archive where it is compressed so, else compressed here."""
    as_it_is = layer.compression == compression
    with archive.open_raw(layer) if as_it_is else archive.open_plain(layer) as content, path.open("wb") as out:
        if as_it_is:
            shutil.copyfileobj(content, out, 1 << 20)
        elif compression == "zstd":
            zstandard.ZstdCompressor(level=_ZSTD_LEVEL, threads=-1).copy_stream(content, out)
        else:
            with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=_GZIP_LEVEL, mtime=0, filename="") as packed:
                shutil.copyfileobj(content, packed, 1 << 20)
    return _Blob(
        digest=_digest_of_file(path),
        size=path.stat().st_size,
        media_type=f"{LAYER_TYPE}+{compression}",
        opened=lambda: path.open("rb"),
    )


def _digest_of_file(path: Path) -> Digest:
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            hashed.update(chunk)
    return Digest(algorithm="sha256", hex=hashed.hexdigest())
