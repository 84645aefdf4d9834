"""Notes in a registry: a text under a tag, as the label of an image without layers, which every registry takes."""

from __future__ import annotations

import io
import json

from builder.contract import CONFIG_TYPE, MANIFEST_TYPE
from builder.oci.manifest import Manifest, descriptor, digest_of
from builder.oci.reference import ImageRef
from builder.oci.registry import Registries


def fetch_note(tag: ImageRef, label: str, registries: Registries) -> str | None:
    """Fetch the text; None if there is no such tag, '' if it names something else."""
    manifest = registries.fetch_manifest(tag)
    return None if manifest is None else registries.fetch_config(tag, manifest).labels.get(label, "")


def put_note(tag: ImageRef, label: str, text: str, registries: Registries) -> None:
    """Put the text under the tag, in place of what is there."""
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {label: text}},
            "rootfs": {"type": "layers", "diff_ids": []},
        },
        sort_keys=True,
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": CONFIG_TYPE, **descriptor(config)},
        "layers": [],
    }
    registries.put_blob(tag, digest_of(config), lambda: io.BytesIO(config))
    registries.put_manifest(tag, Manifest.of(manifest))
