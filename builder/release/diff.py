"""Compares two published images, or a published image with the plan."""

from __future__ import annotations

import re
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

from builder.errors import RegistryError, UsageError
from builder.image.inputs import ImageInputs, package_changes
from builder.image.render import RenderedImage
from builder.matrix.model import Platform
from builder.oci.compression import DAMAGED, compression_of, unpacked
from builder.oci.manifest import Manifest
from builder.oci.reference import Digest, ImageRef, is_tag
from builder.oci.registry import Registries
from builder.parse import FILE_BYTES
from builder.release.state import fetch_image_inputs, fetch_image_manifest

DATABASES = ("var/lib/dpkg/status", "lib/apk/db/installed", "usr/lib/apk/db/installed")
_DEBIAN = re.compile(r"^Package: (?P<name>\S+)$(?:(?!^$).)*?^Version: (?P<version>\S+)$", re.MULTILINE | re.DOTALL)
_ALPINE = re.compile(r"^P:(?P<name>\S+)$\n(?:.+\n)*?V:(?P<version>\S+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Side:
    """An image, or a plan of one.

    `layers` maps digests to compressed sizes in bytes, `system` the names of system packages to versions. Both are None
    for a plan, which has neither yet.
    """

    name: str
    inputs: ImageInputs
    layers: Mapping[str, int] | None
    system: Mapping[str, str] | None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Two sides, and their differences, one line each. The sizes are in bytes, or None if a side is a plan."""

    old: Side
    new: Side
    python: tuple[str, ...]
    base: tuple[str, ...]
    uv: tuple[str, ...]
    packages: tuple[str, ...]
    system: tuple[str, ...]
    settings: tuple[str, ...]
    shared_bytes: int | None
    new_bytes: int | None

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """The differences by their subject."""
        return {
            "python": self.python,
            "base": self.base,
            "uv": self.uv,
            "packages": self.packages,
            "system packages": self.system,
            "settings": self.settings,
        }


def fetch_side(
    text: str, repository: ImageRef | None, registries: Registries, platform: Platform | None = None
) -> Side:
    """Fetch an image, named by a tag or digest in the repository or by a full reference; of an index, the platform's.

    Raises UsageError if there is no such image, or builder did not build it.
    """
    if repository is not None and is_tag(text):
        ref = repository.with_tag(text)
    elif repository is not None and text.startswith("sha256:"):
        ref = repository.with_digest(Digest.from_str(text))
    else:
        ref = ImageRef.from_str(text)
    manifest = fetch_image_manifest(ref, registries, platform)
    inputs = fetch_image_inputs(ref, registries, platform) if manifest else None
    if manifest is None or inputs is None:
        reason = "there is no such image" if manifest is None else "it was not built by this version of builder"
        raise UsageError(
            f"cannot compare {ref.familiar}: {reason}",
            hint="name a tag of the matrix's repository, or a full reference",
        )
    layers = {layer.digest: layer.size for layer in manifest.body.layers}
    return Side(
        name=ref.familiar, inputs=inputs, layers=layers, system=_fetch_system_packages(ref, manifest, registries)
    )


def planned_side(side: Side, rendered: tuple[RenderedImage, ...]) -> Side:
    """Return the current plan of the cell that the other side belongs to; raise UsageError if the matrix lacks it."""
    for image in rendered:
        cell = image.plan.cell
        before = side.inputs.settings.get("platform")
        if cell.name == side.inputs.cell or (cell.tag == side.inputs.cell and str(cell.platform) == before):
            return Side(name=image.immutable_tag.familiar, inputs=ImageInputs.of(image), layers=None, system=None)
    raise UsageError(
        f"the matrix has no cell {side.inputs.cell} to compare {side.name} with",
        hint="name another image to compare it with",
    )


def compare(old: Side, new: Side) -> Difference:
    """Compare two sides."""
    before, after = old.inputs, new.inputs
    has_layers = old.layers is not None and new.layers is not None
    shared = sum(size for digest, size in (new.layers or {}).items() if digest in (old.layers or {}))
    names = sorted(before.settings.keys() | after.settings.keys())
    return Difference(
        old=old,
        new=new,
        python=_changed(before.python, after.python),
        base=_changed(before.base, after.base),
        uv=_changed(before.uv, after.uv),
        packages=tuple(package_changes(before.packages, after.packages)),
        system=() if old.system is None or new.system is None else tuple(package_changes(old.system, new.system)),
        settings=tuple(
            f"{name}: {before.settings.get(name) or 'none'} → {after.settings.get(name) or 'none'}"
            for name in names
            if before.settings.get(name) != after.settings.get(name)
        ),
        shared_bytes=shared if has_layers else None,
        new_bytes=sum((new.layers or {}).values()) - shared if has_layers else None,
    )


def _changed(old: str, new: str) -> tuple[str, ...]:
    return () if old == new else (f"{old} → {new}",)


def _fetch_system_packages(ref: ImageRef, manifest: Manifest, registries: Registries) -> dict[str, str]:
    """Fetch the system packages from the topmost layer with a package database, which replaces those below."""
    for layer in reversed(manifest.body.layers):
        with tempfile.TemporaryFile() as file:
            registries.download_blob(ref, Digest.from_str(layer.digest), file, size=layer.size)
            try:
                databases = _databases(file)
            except DAMAGED as error:
                raise RegistryError(f"layer {layer.digest} of {ref.familiar} cannot be unpacked: {error}") from error
        for name, text in databases:
            return system_packages(name, text)
    return {}


def system_packages(path: str, text: str) -> dict[str, str]:
    """The names and versions in a package database, one of `DATABASES`."""
    pattern = _DEBIAN if "dpkg" in path else _ALPINE
    return {match["name"]: match["version"] for match in pattern.finditer(text)}


def _databases(blob: IO[bytes]) -> list[tuple[str, str]]:
    blob.seek(0)
    compression = compression_of(blob.read(4))
    blob.seek(0)
    with tarfile.open(fileobj=unpacked(blob, compression), mode="r|") as tar:
        return [
            (entry.name, file.read(FILE_BYTES).decode(errors="replace"))
            for entry in tar
            if entry.name.removeprefix("./") in DATABASES and (file := tar.extractfile(entry))
        ]
