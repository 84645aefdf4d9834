"""Assembles an image: the base's layers, those that were found or made, and a small last one with its notes."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Any, Final

from builder.contract import (
    CONFIG_TYPE,
    INPUTS_LABEL,
    KEY_LABEL,
    LABELS,
    LAYER_TYPE,
    MANIFEST_TYPE,
    SELECTION,
    STATUS,
    STDLIB,
    SYSTEM_PYTHON,
)
from builder.image.inputs import ImageInputs
from builder.image.render import SYSTEM_PYTHON_NAME, RenderedImage
from builder.layer.base import BaseImage
from builder.layer.blobs import Blobs
from builder.layer.find import FoundLayer
from builder.layer.plan import Layer, LayerPlan
from builder.oci.manifest import Manifest, descriptor, digest_of, encode_json
from builder.oci.reference import Digest

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # Docker's default
_WITH_WHEELS: Final = {"build-systems", "source", "wheels", "cached"}
_OCI_TYPES: Final = {
    "application/vnd.docker.image.rootfs.diff.tar.gzip": f"{LAYER_TYPE}+gzip",
    "application/vnd.docker.image.rootfs.diff.tar": LAYER_TYPE,
}


@dataclass(frozen=True, kw_only=True)
class AssembledImage:
    """An image that consists of layers; `made` are those that this run made.

    `trees` maps the wheels in its cache (`six-1.17.0`) to the digests of their files, in each layer that has them; it
    is None if a layer does not tell. `proven` are those whose layers are all in an image that passed every check, and
    `stdlib` if that holds for the bytecode of the standard library.
    `size` is that of all layers in bytes.
    """

    rendered: RenderedImage
    plan: LayerPlan
    manifest: Manifest
    config_bytes: bytes
    blobs: Blobs
    made: tuple[Layer, ...]
    trees: Mapping[str, frozenset[str]] | None = None
    proven: frozenset[str] = frozenset()

    @property
    def digest(self) -> Digest:
        """The digest of its manifest."""
        return self.manifest.digest

    def open_blob(self, digest: Digest) -> IO[bytes]:
        """Open one of its blobs; raise RegistryError if it cannot be fetched."""
        return self.blobs.open(digest)

    @property
    def size(self) -> int:
        """The size of all layers in bytes, compressed."""
        return sum(layer.size for layer in self.manifest.body.layers)


def assemble(
    plan: LayerPlan, base: BaseImage, found: Mapping[str, FoundLayer], made: Sequence[Layer], blobs: Blobs
) -> AssembledImage:
    """Assemble an image of the plan's layers, which must all be in `found`, by key.

    The same layers always give the same image: its time is that of the first assembly on this machine.
    """
    layers = [found[layer.key].stored for layer in plan.layers]
    inputs = [plan.rendered.key, str(base.manifest.digest), *(layer.digest for layer in layers)]
    created = blobs.store.first_time(hashlib.sha256("\n".join(inputs).encode()).hexdigest())
    notes = _notes(plan.rendered, created)
    closing = gzip.compress(notes, mtime=0)
    blobs.store.write(closing)
    diff_ids = [*(layer.diff_id for layer in layers), str(digest_of(notes))]
    titles = [*(layer.title for layer in plan.layers), "notes"]
    own = list(zip(titles, diff_ids, strict=True))
    config = blobs.store.write(encode_json(_config(plan.rendered, base, created, own)))
    manifest = Manifest.of(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, **descriptor(config)},
            "layers": [
                *_base_layers(base),
                *(layer.descriptor for layer in layers),
                {"mediaType": f"{LAYER_TYPE}+gzip", **descriptor(closing)},
            ],
        }
    )
    blobs.store.add_image(manifest.digest, digest_of(config))
    return AssembledImage(
        rendered=plan.rendered, plan=plan, manifest=manifest, config_bytes=config, blobs=blobs, made=tuple(made),
        trees=_trees(plan, found), proven=_proven(plan, found),
    )  # fmt: skip


def _trees(plan: LayerPlan, found: Mapping[str, FoundLayer]) -> dict[str, frozenset[str]] | None:
    trees: dict[str, frozenset[str]] = {}
    for layer in plan.layers:
        told = found[layer.key].stored.trees
        if not told and layer.kind in _WITH_WHEELS:
            return None  # an older version made it
        for name, tree in told.items():
            trees[name] = trees.get(name, frozenset()) | {tree}
    return trees


def _proven(plan: LayerPlan, found: Mapping[str, FoundLayer]) -> frozenset[str]:
    layers = [(layer, found[layer.key]) for layer in plan.layers]
    others = {name for _, each in layers if not each.proven for name in each.stored.trees}
    kinds = {layer.kind for layer, each in layers if each.proven}
    return frozenset({name for _, each in layers for name in each.stored.trees} - others | (kinds & {STDLIB}))


def _notes(rendered: RenderedImage, created: datetime) -> bytes:
    """The tar of the last layer: the selection, whose time is the image's, and the two programs."""
    files = dict(rendered.files)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content, mode in (
            (SELECTION, files["pylock.toml"], 0o644),
            (STATUS, files["prebuilt-status"], 0o755),
            (SYSTEM_PYTHON, files[SYSTEM_PYTHON_NAME], 0o755),
        ):
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode, entry.mtime = len(content), mode, int(created.timestamp())
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def _base_layers(base: BaseImage) -> list[dict[str, Any]]:
    table: Sequence[Mapping[str, Any]] = base.manifest.table["layers"]
    kept = ({name: layer[name] for name in ("mediaType", "digest", "size")} for layer in table)
    return [{**layer, "mediaType": _OCI_TYPES.get(layer["mediaType"], layer["mediaType"])} for layer in kept]


def _config(
    rendered: RenderedImage, base: BaseImage, created: datetime, layers: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """The image's config; `layers` are titles and digests of the plain tars of its own layers."""
    config = dict(base.config)
    section = dict(config.get("config") or {})
    environment = {**base.environment, **rendered.plan.environment}
    environment["PATH"] = f"{rendered.plan.path}:{base.environment.get('PATH', _PATH)}"
    section["Env"] = [f"{name}={value}" for name, value in environment.items()]
    if rendered.plan.cell.user:
        section["User"] = rendered.plan.cell.user
    labels = {**rendered.plan.labels, KEY_LABEL: rendered.key, INPUTS_LABEL: ImageInputs.of(rendered).to_label()}
    section["Labels"] = {**(section.get("Labels") or {}), **labels}
    time = created.isoformat().replace("+00:00", "Z")
    first = {"created": time, "created_by": f"LABEL {LABELS}.cell={rendered.plan.cell.name}", "empty_layer": True}
    own = [{"created": time, "created_by": f"builder: {title}"} for title, _ in layers]
    config["rootfs"] = {"type": "layers", "diff_ids": [*base.diff_ids, *(diff_id for _, diff_id in layers)]}
    return {**config, "created": time, "config": section, "history": [*_base_history(base), first, *own]}


def _base_history(base: BaseImage) -> list[Any]:
    """The base's history, with an entry for each of its layers: engines tell a layer's entry by its position."""
    history = list(base.config.get("history") or ())
    with_layer = [entry for entry in history if not entry.get("empty_layer")]
    return history if len(with_layer) == len(base.layers) else [{"created_by": "base"} for _ in base.layers]
