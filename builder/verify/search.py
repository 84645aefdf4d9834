"""Searches an image for the secrets of its build."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from builder.contract import LABELS
from builder.layer.assemble import AssembledImage
from builder.layer.secrets import find_mark, record_hash, recorded_hashes, secret_marks
from builder.oci.archive import ArchiveLayer, ImageArchive

_CA_BUNDLE: Final = "etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True, kw_only=True)
class BuildInputs:
    """What an image was built from: secrets, as files by id, and a selection of packages, names to versions.

    `log` is the build log, which is searched for secrets too. The version of a package is None if any will do; the
    selection is None if it is not known.
    """

    secrets: Mapping[str, Path]
    log: str = ""
    selection: Mapping[str, str | None] | None = None


class LeakError(Exception):
    """A secret is in the image; `str()` says which one, and where."""


def search_image(archive: ImageArchive, inputs: BuildInputs, raise_if_stopped: Callable[[], None]) -> str:
    """Search the image and the log; return a summary; raise LeakError at the first secret found.

    The function is called at each file, so that it can end the search.
    """
    base, layers = archive.split(f"LABEL {LABELS}.")
    marks = secret_marks(inputs.secrets, _ca_bundles(archive, base))
    if not marks:
        return "the build had only public certificates, which are in certifi or in the base image"
    for place, content in _places(archive, inputs.log):
        if found := find_mark(marks, content):
            raise LeakError(f"{found} is in {place}")
    count = _search_layers(archive, layers, marks, raise_if_stopped)
    places = f"{count} files of {len(layers)} layers, config, history and log"
    return f"searched {places} for {len(marks)} marks of {', '.join(inputs.secrets)}"


def search_assembled(image: AssembledImage, inputs: BuildInputs) -> str:
    """Search the config, the history and the log of an image whose layers were searched when they were made."""
    marks = secret_marks(inputs.secrets)
    for place, content in (("the config or history", image.config_bytes), ("the build log", inputs.log.encode())):
        if found := find_mark(marks, content):
            raise LeakError(f"{found} is in {place}")
    made = len(image.made)
    return (
        f"searched config, history and log for {len(marks)} marks of {', '.join(inputs.secrets)}, "
        f"and {made} of {len(image.plan.layers)} layers; the others when they were made"
    )


def _places(archive: ImageArchive, log: str) -> Iterator[tuple[str, bytes]]:
    yield "the config or history", archive.config_bytes
    yield "the build log", log.encode()
    for attestation in archive.attestations:
        for statement in attestation.blobs.values():
            yield "an attestation", statement


def _search_layers(
    archive: ImageArchive,
    layers: Sequence[ArchiveLayer],
    marks: Mapping[bytes, str],
    raise_if_stopped: Callable[[], None],
) -> int:
    """Search every file, name and link of the layers and return their number; raise LeakError at a secret."""
    count = 0
    recorded: set[str] = set()
    hits: dict[str, str] = {}
    for layer in layers:
        for entry, content in archive.entries(layer):
            raise_if_stopped()
            count += 1
            if found := find_mark(marks, os.fsencode(f"{entry.name}\0{entry.linkname}")):
                raise LeakError(f"{found} is in the name or link /{entry.name} of layer {layer.member}")
            if entry.name.endswith(".dist-info/RECORD"):
                recorded |= recorded_hashes(content)
            if found := find_mark(marks, content):
                hits[record_hash(content)] = f"{found} is in /{entry.name} of layer {layer.member}"
    # A file that a wheel contains, with its hash, is as public as the wheel: botocore and pip contain CA bundles.
    leaks = [hit for digest, hit in hits.items() if digest not in recorded]
    if leaks:
        raise LeakError(leaks[0])
    return count


def _ca_bundles(archive: ImageArchive, layers: Sequence[ArchiveLayer]) -> Iterator[bytes]:
    """The CA bundle in each layer of the base image, at the path that Debian and Alpine use."""
    for layer in layers:
        bundles = (content for name, content in archive.files(layer) if name.removeprefix("./") == _CA_BUNDLE)
        yield from itertools.islice(bundles, 1)
