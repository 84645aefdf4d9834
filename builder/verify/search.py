"""A search of a whole image for the secrets that its build was given."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from builder.contract import LABELS
from builder.oci.archive import ImageArchive, Layer
from builder.verify.secrets import find_mark, record_hash, recorded_hashes, secret_marks

_CA_BUNDLE: Final = "etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True, kw_only=True)
class BuildInputs:
    """What an image was built from: secrets, as files by id, which must not be in it, and the packages which must.

    `log` is searched for secrets as well. `selection` maps package names to versions, None where any version will do;
    it is None where the packages are not known.
    """

    secrets: Mapping[str, Path]
    log: str = ""
    selection: Mapping[str, str | None] | None = None


class LeakError(Exception):
    """A secret was found; `str()` says which, and where."""


def search_image(archive: ImageArchive, inputs: BuildInputs) -> str:
    """Return what was searched for and where; raise LeakError with the first secret found."""
    base, layers = archive.split(f"LABEL {LABELS}.")
    marks = secret_marks(inputs.secrets, _ca_bundles(archive, base))
    if not marks:
        return "all that the build was given is public: no certificate that is not in certifi or in the base image"
    for place, content in _places(archive, inputs.log):
        if found := find_mark(marks, content):
            raise LeakError(f"{found} is in {place}")
    count = _search_layers(archive, layers, marks)
    named = f"{len(marks)} marks of {', '.join(inputs.secrets)}"
    return f"{named} searched in {count} files of {len(layers)} layers, config, history, log"


def _places(archive: ImageArchive, log: str) -> Iterator[tuple[str, bytes]]:
    yield "the config or history", archive.config_bytes
    yield "the build log", log.encode()
    for attestation in archive.attestations:
        for statement in attestation.blobs.values():
            yield "an attestation", statement


def _search_layers(archive: ImageArchive, layers: Sequence[Layer], marks: Mapping[bytes, str]) -> int:
    """Search every file, name and link of the layers and return how many there are; raise LeakError."""
    count = 0
    vouched: set[str] = set()
    hits: dict[str, str] = {}
    for layer in layers:
        for entry, content in archive.entries(layer):
            count += 1
            if found := find_mark(marks, f"{entry.name}\0{entry.linkname}".encode()):
                raise LeakError(f"{found} is in the name or link /{entry.name} of layer {layer.member}")
            if entry.name.endswith(".dist-info/RECORD"):
                vouched |= recorded_hashes(content)
            if found := find_mark(marks, content):
                hits[record_hash(content)] = f"{found} is in /{entry.name} of layer {layer.member}"
    # A file that a wheel brought along, hash and all, is as public as the wheel: botocore and pip carry CA bundles.
    leaks = [hit for digest, hit in hits.items() if digest not in vouched]
    if leaks:
        raise LeakError(leaks[0])
    return count


def _ca_bundles(archive: ImageArchive, layers: Sequence[Layer]) -> Iterator[bytes]:
    """The CA bundle that each layer of the base image brings along, where Debian and Alpine keep it."""
    for layer in layers:
        bundles = (content for name, content in archive.files(layer) if name.removeprefix("./") == _CA_BUNDLE)
        yield from itertools.islice(bundles, 1)
