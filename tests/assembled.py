"""Assembled images for tests: a base in a store, layers with made-up content, no registry."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from builder.image.render import RenderedImage
from builder.layer.assemble import AssembledImage, assemble
from builder.layer.base import BaseImage
from builder.layer.blobs import Blobs
from builder.layer.find import FoundLayer
from builder.layer.plan import LayerPlan, plan_layers
from builder.layer.store import LayerStore, StoredLayer
from builder.oci.manifest import Manifest
from builder.oci.reference import Digest, ImageRef, Mirrors
from builder.oci.registry import Registries
from tests.layers import INTERPRETER, chosen, digest, file, rendered, tar_of

DOCKER: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
OCI: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
BASE_PLAIN: Final = (tar_of(file("etc/base", b"1")), tar_of(file("etc/base", b"2")))
BASE_HISTORY: Final = (
    {"created_by": "ADD rootfs.tar"},
    {"created_by": "ENV X=1", "empty_layer": True},
    {"created_by": "RUN install"},
)
BASE_SECTION: Final = {
    "Env": ["PATH=/base/bin:/bin", "PYTHON_VERSION=3.12.4", "UV_LINK_MODE=clone", "EMPTY="],
    "Cmd": ["python3"],
    "Labels": {"maintainer": "jane"},
    "WorkingDir": "/srv",
}


def base(
    store: LayerStore,
    *,
    kind: str = OCI,
    history: Sequence[Mapping[str, Any]] | None = BASE_HISTORY,
    section: Mapping[str, Any] | None = BASE_SECTION,
    **more: Any,
) -> BaseImage:
    """An image with two layers, in the store; `more` are further fields of its config."""
    blobs = [store.write(gzip.compress(plain, mtime=0)) for plain in BASE_PLAIN]
    config: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [str(digest(plain)) for plain in BASE_PLAIN]},
        **({"history": list(history)} if history is not None else {}),
        **({"config": dict(section)} if section is not None else {}),
        **more,
    }
    packed = store.write(json.dumps(config).encode())
    layers = [
        {"mediaType": kind, "digest": str(digest(blob)), "size": len(blob), "annotations": {"of": "base"}}
        for blob in blobs
    ]
    manifest = Manifest.of(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {"mediaType": "x", "digest": str(digest(packed)), "size": len(packed)},
            "layers": layers,
        }
    )
    ref = ImageRef.from_str("registry.example.com/python")
    return BaseImage(ref=ref, manifest=manifest, config_bytes=packed)


def plan(image: RenderedImage | None = None) -> LayerPlan:
    """A plan with two layers of wheels."""
    image = image or rendered([chosen("small"), chosen("large", size=9_000_000)])
    sizes = {package.name: package.size or 0 for package in image.plan.selection.packages}
    return plan_layers(image, INTERPRETER, "gzip", 100, sizes)


def assembled(
    folder: Path, of: LayerPlan | None = None, base_image: BaseImage | None = None, *, kind: str = OCI
) -> AssembledImage:
    """The image of a plan, each of whose layers has one file that is named like it."""
    store = LayerStore(folder=folder)
    of = of or plan()
    found = {}
    for layer in of.layers:
        plain = tar_of(file(f"opt/{layer.key}"))
        blob = store.write(gzip.compress(plain, mtime=0))
        stored = StoredLayer(
            key=layer.key, digest=str(digest(blob)), size=len(blob), media_type=kind, diff_id=str(digest(plain))
        )
        store.add(stored, "")
        found[layer.key] = FoundLayer(stored=stored, repository=None)
    blobs = Blobs(store=store, registries=Registries(Mirrors()), origins={})
    return assemble(of, base_image or base(store), found, of.layers[:1], blobs)


def read(image: AssembledImage, digest_text: str) -> bytes:
    """A blob of the image."""
    with image.open_blob(Digest.from_str(digest_text)) as blob:
        return blob.read()


def names(packed: bytes) -> list[str]:
    """The names of the entries of a compressed tar."""
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
        return tar.getnames()
