"""What is in a published image: its layers, its packages, and what each takes of the size."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import Field

from builder.contract import CELL_LABEL, KEY_LABEL, SELECTION
from builder.errors import UsageError
from builder.http import ANSWER_BYTES
from builder.image.inputs import ImageInputs
from builder.oci.manifest import ImageConfig, Manifest
from builder.oci.reference import Digest, ImageRef
from builder.oci.registry import Registries
from builder.parse import Document, MalformedError, one_line, parse_toml
from builder.release.state import fetch_image_config, fetch_image_inputs, fetch_image_manifest

_OWN: Final = re.compile(r"builder: (?P<kind>[\w-]+)(?:: (?P<packages>.+))?")  # as `builder.layer.assemble` titles them
_NOTES: Final = "notes"


@dataclass(frozen=True, kw_only=True)
class ShownLayer:
    """A layer: its kind (`base` for those below builder's own), compressed size in bytes, and packages of the lock."""

    kind: str
    digest: str
    size: int
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ShownPackage:
    """A package, and what it takes of the image in bytes; None if unknown.

    If it shares its layer, the size is its part by the sizes of the wheels, which is close.
    """

    name: str
    version: str
    size: int | None
    is_shared: bool


@dataclass(frozen=True, kw_only=True)
class Contents:
    """An image. `packages` are sorted by size, the largest first.

    Sizes are compressed, as in a registry; those of an engine's image are `unpacked`, and its layers have no digest.
    """

    ref: ImageRef
    digest: Digest
    inputs: ImageInputs
    cell: str
    key: str
    layers: tuple[ShownLayer, ...]
    packages: tuple[ShownPackage, ...]
    unpacked: bool = False

    @property
    def size(self) -> int:
        """Bytes of all layers."""
        return sum(layer.size for layer in self.layers)


class _File(Document):
    size: int | None = None


class _Package(Document):
    name: str
    wheels: list[_File] = Field(default_factory=list)
    sdist: _File | None = None


class _Selection(Document):
    packages: list[_Package] = Field(default_factory=list)


def fetch_contents(ref: ImageRef, registries: Registries) -> Contents:
    """Fetch manifest, config and notes of an image; raise UsageError if there is none, or builder did not build it."""
    manifest = fetch_image_manifest(ref, registries)
    inputs = fetch_image_inputs(ref, registries) if manifest else None
    if manifest is None or inputs is None:
        reason = "there is no such image" if manifest is None else "it was not built by this version of builder"
        raise UsageError(f"cannot show {ref.familiar}: {reason}", hint="`builder ls` lists the images")
    config = fetch_image_config(ref, registries)
    layers = _layers(manifest, config)
    return Contents(
        ref=ref, digest=manifest.digest, inputs=inputs, layers=layers,
        cell=one_line(config.labels.get(CELL_LABEL, inputs.cell)), key=one_line(config.labels.get(KEY_LABEL, "")),
        packages=packages_of(layers, inputs.packages, _fetch_weights(ref, layers, registries)),
    )  # fmt: skip


def _layers(manifest: Manifest, config: ImageConfig) -> tuple[ShownLayer, ...]:
    """The layers with what the config's history says of them, if it has an entry for each."""
    history = [entry.created_by for entry in config.history or () if not entry.empty_layer]
    found = manifest.body.layers
    titles = history if len(history) == len(found) else [""] * len(found)
    return tuple(shown_layer(title, layer.digest, layer.size) for title, layer in zip(titles, found, strict=True))


def shown_layer(title: str, digest: str, size: int) -> ShownLayer:
    """A layer, by the title that the config's history has of it."""
    match = _OWN.fullmatch(title)
    names = tuple(match["packages"].split(", ")) if match and match["packages"] else ()
    return ShownLayer(kind=match["kind"] if match else "base", digest=digest, size=size, packages=names)


def packages_of(
    layers: Sequence[ShownLayer], versions: Mapping[str, str], weights: Mapping[str, int]
) -> tuple[ShownPackage, ...]:
    """The packages with their part of their layer; `weights` are the sizes of wheels, by name."""
    sizes: dict[str, int] = {}
    shared: set[str] = set()
    for layer in [each for each in layers if each.kind != "tool"]:  # which may have other versions
        total = sum(weights.get(name, 0) for name in layer.packages)
        if len(layer.packages) == 1:
            sizes[layer.packages[0]] = layer.size
        elif total and all(name in weights for name in layer.packages):
            shared |= set(layer.packages)
            sizes |= {name: round(layer.size * weights[name] / total) for name in layer.packages}
    packages = [
        ShownPackage(name=name, version=version, size=sizes.get(name), is_shared=name in shared)
        for name, version in versions.items()
    ]
    return tuple(sorted(packages, key=lambda each: (-(each.size or 0), each.name)))


def _fetch_weights(ref: ImageRef, layers: Sequence[ShownLayer], registries: Registries) -> dict[str, int]:
    """The sizes of the artifacts that the image was made of, from its notes; none if it has no such layer."""
    notes = layers[-1] if layers else None
    if notes is None or notes.kind != _NOTES or notes.size > ANSWER_BYTES:
        return {}
    blob = registries.fetch_blob(ref, Digest.from_str(notes.digest), size=notes.size)
    try:
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob))) as tar:
            file = tar.extractfile(SELECTION.lstrip("/"))
            return weights_of(file.read()) if file else {}
    except (OSError, EOFError, tarfile.TarError, KeyError):
        return {}


def weights_of(selection_text: bytes) -> dict[str, int]:
    """The sizes of the artifacts in a selection, by package; none if it cannot be read."""
    try:
        selection = parse_toml(_Selection, selection_text.decode())
    except (ValueError, MalformedError):
        return {}
    files = {
        package.name: [*package.wheels, *([package.sdist] if package.sdist else [])] for package in selection.packages
    }
    return {name: each[0].size for name, each in files.items() if each and each[0].size}
