"""An image in an archive, which engines that cannot pull from this machine load."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from builder.errors import RegistryError
from builder.layer.assemble import AssembledImage
from builder.oci.archive import ImageArchive
from builder.oci.layout import write_archive
from builder.oci.reference import Digest, ImageRef
from tests.archives import without
from tests.assembled import assembled, read

TAG = ImageRef.from_str("python-ci:3.12-slim")


@pytest.fixture
def image(tmp_path: Path) -> AssembledImage:
    """An assembled image."""
    return assembled(tmp_path / "store")


@pytest.fixture
def written(image: AssembledImage, tmp_path: Path) -> Path:
    """Its archive."""
    path = tmp_path / "image.tar"
    write_archive(image, TAG, path)
    return path


def test_archive_has_the_image(image: AssembledImage, written: Path) -> None:
    """Broken: an engine loads another image than the one that was assembled."""
    with ImageArchive(written) as archive:
        assert archive.config_bytes == image.config_bytes
        assert [layer.digest for layer in archive.layers] == [each.digest for each in image.manifest.body.layers]
        for layer in archive.layers:
            assert archive.open_raw(layer).read() == read(image, layer.digest)
        assert archive.entry["digest"] == str(image.digest)


def test_older_layout_has_the_same(image: AssembledImage, written: Path, tmp_path: Path) -> None:
    """Broken: an engine that reads only Docker's own layout gets no image, or one without a name."""
    with tarfile.open(written) as tar:
        files = {entry.name: opened.read() for entry in tar if (opened := tar.extractfile(entry))}
    (entry,) = json.loads(files["manifest.json"])
    assert files[entry["Config"]] == image.config_bytes
    assert [files[name] for name in entry["Layers"]] == [
        read(image, layer.digest) for layer in image.manifest.body.layers
    ]
    assert entry["RepoTags"] == ["python-ci:3.12-slim"]
    with ImageArchive(without(written, files["index.json"])) as archive:
        assert archive.config_bytes == image.config_bytes


def test_name_of_the_image(written: Path) -> None:
    """Broken: an engine with containerd's store loads an image without a name."""
    with tarfile.open(written) as tar:
        opened = tar.extractfile("index.json")
        assert opened
        (entry,) = json.load(opened)["manifests"]
    assert entry["annotations"] == {
        "io.containerd.image.name": "docker.io/library/python-ci:3.12-slim",
        "org.opencontainers.image.ref.name": "3.12-slim",
    }


def test_each_blob_is_written_once(written: Path) -> None:
    """Broken: an archive has a layer twice, and engines refuse it or take twice as long."""
    with tarfile.open(written) as tar:
        names = tar.getnames()
    assert len(names) == len(set(names))


def test_lost_blob(image: AssembledImage, tmp_path: Path) -> None:
    """Broken: a blob that cannot be read gives an archive that lacks it."""
    lost = Digest.from_str(image.manifest.body.layers[2].digest)
    image.blobs.store.path(lost).unlink()
    with pytest.raises(RegistryError):
        write_archive(image, TAG, tmp_path / "half.tar")
