"""A search of a whole image for the secrets that its build was given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.contract import LABELS
from builder.oci.archive import ImageArchive, Layer
from builder.verify.secrets import find_mark, record_hash, recorded_hashes, secret_marks


@dataclass(frozen=True, kw_only=True)
class BuildInputs:
    """What a build got that must not be in the image: files by secret id, and the log, which is searched as well."""

    secrets: Mapping[str, Path]
    log: str = ""


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
    """Search every file of the layers and return how many there are; raise LeakError."""
    count = 0
    vouched: set[str] = set()
    hits: dict[str, str] = {}
    for layer in layers:
        for name, content in archive.files(layer):
            count += 1
            if name.endswith(".dist-info/RECORD"):
                vouched |= recorded_hashes(content)
            if found := find_mark(marks, content):
                hits[record_hash(content)] = f"{found} is in /{name} of layer {layer.member}"
    # A file that a wheel brought along, hash and all, is as public as the wheel: botocore and pip carry CA bundles.
    leaks = [hit for digest, hit in hits.items() if digest not in vouched]
    if leaks:
        raise LeakError(leaks[0])
    return count


def _ca_bundles(archive: ImageArchive, layers: Sequence[Layer]) -> list[bytes]:
    """The CA bundles that the base image brings along, as Debian and Alpine keep them."""
    return [
        content
        for layer in layers
        for name, content in archive.files(layer)
        if name.removeprefix("./") == "etc/ssl/certs/ca-certificates.crt"
    ]
