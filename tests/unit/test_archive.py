"""Saved images in each layout that engines write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from builder.errors import EngineError
from builder.oci.archive import ImageArchive
from tests import archives
from tests.archives import history, layer

STEPS = history(
    "FROM base", "ENV a=b", "LABEL mine.cell=x", "COPY uv", "RUN install", empty=("ENV a=b", "LABEL mine.cell=x")
)
LAYERS = [
    layer({"etc/base": b"1"}),
    layer({"usr/bin/uv": b"2"}, packed=zstandard.compress),
    layer({"opt/x": b"3", "opt/y": b"4"}, packed=bytes),
]

WRITERS: dict[str, Callable[[Path], Path]] = {
    "oci": lambda path: archives.oci(path, *LAYERS, steps=STEPS),
    "oci-nested": lambda path: archives.oci(path, *LAYERS, steps=STEPS, nested=True),
    "docker": lambda path: archives.docker(path, *LAYERS, steps=STEPS),
}


@pytest.fixture(params=WRITERS)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The image, saved in each layout."""
    return WRITERS[request.param](tmp_path / "image.tar")


def test_files_of_every_layer(saved: Path) -> None:
    """Broken: a leaked secret goes unnoticed because a layer, or a file in it, is not read."""
    with ImageArchive(saved) as archive:
        assert [dict(archive.files(each)) for each in archive.layers] == [
            {"etc/base": b"1"},
            {"usr/bin/uv": b"2"},
            {"opt/x": b"3", "opt/y": b"4"},
        ]


def test_size_is_that_of_all_layers(saved: Path) -> None:
    """Broken: builder reports a size other than the one that users download."""
    with ImageArchive(saved) as archive:
        assert archive.size == sum(map(len, LAYERS))


def test_history_and_config(saved: Path) -> None:
    """Broken: a secret in the history goes unnoticed."""
    with ImageArchive(saved) as archive:
        assert [entry.model_dump(exclude_defaults=True) for entry in archive.history] == STEPS


def test_split_at_builders_own_first_step(saved: Path) -> None:
    """Broken: files of the base image are taken for builder's, or the reverse."""
    with ImageArchive(saved) as archive:
        below, above = archive.split("LABEL mine.")
        assert [list(dict(archive.files(each))) for each in below] == [["etc/base"]]
        assert [list(dict(archive.files(each))) for each in above] == [["usr/bin/uv"], ["opt/x", "opt/y"]]


@pytest.mark.parametrize("steps", [history("FROM base", "COPY uv", "RUN install"), history("LABEL mine.cell=x"), []])
def test_history_that_tells_nothing_makes_all_layers_builders_own(tmp_path: Path, steps: list[dict[str, str]]) -> None:
    """Broken: layers that may be builder's are not searched."""
    with ImageArchive(archives.oci(tmp_path / "image.tar", *LAYERS, steps=steps)) as archive:
        assert archive.split("LABEL mine.") == ((), archive.layers)


def test_image_in_part(saved: Path) -> None:
    """Broken: an engine that lacks a part of an image causes a traceback, or a push of half an image."""
    with pytest.raises(EngineError, match="only a part"), ImageArchive(archives.without(saved, LAYERS[1])):
        pass
