"""Images of a registry that lies: odd configs, sizes and layers are one clear error."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from builder.errors import RegistryError
from builder.layer.base import BaseImage, fetch_image
from builder.layer.blobs import Blobs
from builder.layer.store import LayerStore
from builder.layer.uv import write_uv
from builder.matrix.model import Platform
from builder.oci.manifest import digest_of
from builder.oci.reference import ImageRef, Mirrors
from builder.oci.registry import Registries

REF = ImageRef.from_str("registry.example/base:1")
DIFF_ID = f"sha256:{'0' * 64}"
CONFIG: dict[str, Any] = {"rootfs": {"type": "layers", "diff_ids": [DIFF_ID]}}
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"


def stored(folder: Path, config: Any, layer: bytes = b"", **entry: Any) -> tuple[LayerStore, ImageRef]:
    """An image with a config and one layer that was fetched before."""
    store = LayerStore(folder=folder)
    content = json.dumps(config).encode()
    for blob in (content, layer):
        store.write(blob)
    described = {"mediaType": LAYER_TYPE, "digest": str(digest_of(layer)), "size": len(layer), **entry}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "size": 1,
            "digest": str(digest_of(content)),
        },
        "layers": [{name: value for name, value in described.items() if value is not None}],
    }
    written = store.write(json.dumps(manifest).encode())
    return store, REF.with_digest(digest_of(written))


def fetched(folder: Path, config: Any, layer: bytes = b"", **entry: Any) -> tuple[BaseImage, LayerStore]:
    """The image as it is fetched from the store."""
    store, ref = stored(folder, config, layer, **entry)
    return fetch_image(ref, Platform(architecture="amd64"), Registries(Mirrors()), store), store


def test_base_of_another_platform(tmp_path: Path) -> None:
    """Broken: an image for one platform has the programs of another, because its base is for that alone."""
    with pytest.raises(RegistryError, match="has an image for linux/arm64 alone, not for linux/amd64"):
        fetched(tmp_path, {**CONFIG, "architecture": "arm64"})


@pytest.mark.parametrize(
    "config",
    [
        None,
        [],
        1,
        {},
        {"rootfs": None},
        {"rootfs": []},
        {"rootfs": {"diff_ids": None}},
        {"rootfs": {"diff_ids": ["../../x"]}},
        {"rootfs": {"diff_ids": []}},
        {"rootfs": {"diff_ids": [DIFF_ID, DIFF_ID]}},
        {**CONFIG, "config": []},
        {**CONFIG, "config": {"Env": "A=1"}},
        {**CONFIG, "config": {"Env": [1]}},
        {**CONFIG, "config": {"Labels": []}},
        {**CONFIG, "config": {"Labels": {"a": 1}}},
        {**CONFIG, "history": {}},
        {**CONFIG, "history": [1]},
    ],
)
def test_odd_config_of_a_base(tmp_path: Path, config: Any) -> None:
    """Broken: an odd config of a base image ends the build with a traceback."""
    with pytest.raises(RegistryError, match="is not an image that can be built on"):
        fetched(tmp_path, config)


def test_plain_config_of_a_base(tmp_path: Path) -> None:
    """Broken: a base image without variables and without a history is refused."""
    image, _ = fetched(tmp_path, {**CONFIG, "config": None, "history": None})
    assert (image.diff_ids, image.environment) == ([DIFF_ID], {})


@pytest.mark.parametrize("entry", [{"mediaType": None}, {"size": 1 << 70}, {"size": -1}, {"digest": "sha256:x"}])
def test_odd_layer_of_a_base(tmp_path: Path, entry: dict[str, Any]) -> None:
    """Broken: a registry makes builder fetch without an end, or a base without a media type ends it in a traceback."""
    with pytest.raises(RegistryError):
        fetched(tmp_path, CONFIG, **entry)


def _uv_tar(**pax: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("uv", "uvx"):
            entry = tarfile.TarInfo(name)
            entry.pax_headers = pax
            tar.addfile(entry)
    return gzip.compress(packed.getvalue())


@pytest.mark.parametrize(
    "layer",
    [b"", b"no tar", gzip.compress(b"x" * 600), _uv_tar()[:-12], b"\x28\xb5\x2f\xfd-"],
    ids=["empty", "text", "text in gzip", "truncated", "zstd"],
)
def test_damaged_layer_with_uv(tmp_path: Path, layer: bytes) -> None:
    """Broken: a damaged layer of the uv image ends the build with a traceback."""
    image, store = fetched(tmp_path, CONFIG, layer)
    blobs = Blobs(store=store, registries=Registries(Mirrors()), origins={})
    with pytest.raises(RegistryError):
        write_uv(image, blobs, tmp_path / "uv.tar")


@pytest.mark.parametrize("time", ["1e400", "nan", "-5", "1e30"])
def test_odd_time_of_uv(tmp_path: Path, time: str) -> None:
    """Broken: an odd time in the uv image ends the build with a traceback."""
    image, store = fetched(tmp_path, CONFIG, _uv_tar(mtime=time))
    write_uv(image, Blobs(store=store, registries=Registries(Mirrors()), origins={}), tmp_path / "uv.tar")
    with tarfile.open(tmp_path / "uv.tar") as tar:
        assert {entry.mtime for entry in tar} == {0}
