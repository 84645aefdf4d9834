"""Writes an image to an archive in the OCI image layout (image-layout.md), which engines load."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

from builder.contract import INDEX_TYPE
from builder.oci.loopback import Content
from builder.oci.manifest import descriptor, encode_json
from builder.oci.reference import Digest, ImageRef


def write_archive(content: Content, tag: ImageRef, path: Path) -> None:
    """Write the image, to be loaded under the tag, to a new file.

    It has a `manifest.json` too, for engines that read only Docker's own layout.
    """
    body = content.manifest.body
    entry = {
        "mediaType": content.manifest.media_type,
        **descriptor(content.manifest.content),
        "annotations": {"io.containerd.image.name": str(tag), "org.opencontainers.image.ref.name": str(tag.tag)},
    }
    config = body.config.digest if body.config else ""
    layers = [layer.digest for layer in body.layers]
    legacy: list[dict[str, Any]] = [
        {"Config": _member(config), "RepoTags": [tag.familiar], "Layers": [_member(layer) for layer in layers]}
    ]
    with tarfile.open(path, "w") as tar:
        _add(tar, "oci-layout", encode_json({"imageLayoutVersion": "1.0.0"}))
        _add(tar, "index.json", encode_json({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry]}))
        _add(tar, "manifest.json", json.dumps(legacy).encode())
        _add(tar, _member(str(content.manifest.digest)), content.manifest.content)
        for digest in dict.fromkeys([config, *layers]):
            with content.open_blob(Digest.from_str(digest)) as blob:
                member = tarfile.TarInfo(_member(digest))
                member.size = blob.seek(0, 2)
                blob.seek(0)
                tar.addfile(member, blob)


def _member(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
