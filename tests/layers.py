"""Images and layers for unit tests, without a lock file and without an engine."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from builder.image.plan import ImagePlan
from builder.image.render import RenderedImage, render
from builder.layer.plan import LayerPlan, plan_layers
from builder.lock.model import SelectedPackage, Selection
from builder.matrix.model import Cell
from builder.oci.reference import Digest, ImageRef
from tests import cells, locks

BASE_DIGEST = Digest(algorithm="sha256", hex="ba5e" * 16)
UV_DIGEST = Digest(algorithm="sha256", hex="0123456789abcdef" * 4)
INTERPRETER = "3.12.4"


def chosen(name: str, version: str = "1.0", tag: str = "py3-none-any", **source: Any) -> SelectedPackage:
    """A selected wheel; `source` are further keys of its table."""
    table = {**locks.wheel(name, version, tag), **source}
    return _package(name, version, "wheel", table)


def built(name: str, version: str = "1.0") -> SelectedPackage:
    """A selected source distribution."""
    return _package(name, version, "sdist", locks.sdist(name, version))


def _package(name: str, version: str, artifact: Any, source: Mapping[str, Any]) -> SelectedPackage:
    return SelectedPackage(
        name=name, version=version, artifact=artifact, filename=source["name"], size=source.get("size"),
        index=locks.INDEX, source=source,
    )  # fmt: skip


def image_plan(packages: Iterable[SelectedPackage], cell: Cell | None = None, **changes: Any) -> ImagePlan:
    """The plan of an image of a cell with these packages; `changes` are fields of it, or of its selection."""
    cell = cell or cells.debian()
    of_selection = {
        name: changes.pop(name) for name in ("build_systems", "uv_settings", "cached", "tools") if name in changes
    }
    selection = Selection(
        cell=cell, lock_kind="uv.lock", lock_name="uv.lock", uv_flags=(), packages=tuple(packages), build_systems=(),
        uv_settings={},
    )  # fmt: skip
    plan = ImagePlan(
        cell=cell,
        selection=replace(selection, **of_selection),
        base=cell.image.with_digest(BASE_DIGEST),
        uv=ImageRef.from_str("ghcr.io/astral-sh/uv:0.13.8").with_digest(UV_DIGEST),
        repository=ImageRef.from_str("registry.example.com/acme/ci"),
        link_mode="copy",
        moving_tags=(cell.name,),
        branch="",
        refresh_period="",
    )
    return replace(plan, **changes)


def rendered(packages: Iterable[SelectedPackage], cell: Cell | None = None, **changes: Any) -> RenderedImage:
    """A rendered image; see `image_plan`."""
    return render(image_plan(packages, cell, **changes))


def layers_of(
    packages: Iterable[SelectedPackage],
    cell: Cell | None = None,
    *,
    interpreter: str = INTERPRETER,
    compression: Any = "gzip",
    most: int = 100,
    sizes: Mapping[str, int] | None = None,
    **changes: Any,
) -> LayerPlan:
    """The layers of an image with these packages, whose sizes are those of the lock unless given."""
    packages = list(packages)
    known = {package.name: package.size for package in packages if package.size} if sizes is None else sizes
    image = RenderedImage(plan=image_plan(packages, cell, **changes), files=(), key="0" * 64)
    return plan_layers(image, interpreter, compression, most, known)


def tar_of(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """A plain tar of these entries."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry, content in entries:
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def file(name: str, content: bytes = b"", mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    """A regular file of a tar."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    return entry, content


def link(name: str, target: str, *, hard: bool = False) -> tuple[tarfile.TarInfo, bytes]:
    """A symbolic link of a tar, or a hard one."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode = tarfile.LNKTYPE if hard else tarfile.SYMTYPE, target, 0o777
    return entry, b""


def folder(name: str, mode: int = 0o777) -> tuple[tarfile.TarInfo, bytes]:
    """A folder of a tar."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    return entry, b""


def digest(content: bytes) -> Digest:
    """The digest of the bytes, computed without builder."""
    return Digest(algorithm="sha256", hex=hashlib.sha256(content).hexdigest())
