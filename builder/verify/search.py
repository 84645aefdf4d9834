"""Searches an image for the secrets of its build."""

from __future__ import annotations

import contextlib
import io
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from builder.contract import LABELS
from builder.layer.artifact import Artifacts
from builder.layer.assemble import AssembledImage
from builder.layer.leak import entry_text, find_leak, find_leak_in_json
from builder.layer.secrets import find_mark, record_hash, recorded_hashes, secret_marks
from builder.lock.model import SelectedPackage
from builder.oci.archive import ArchiveLayer, ImageArchive
from builder.redaction import Login

_CA_BUNDLE: Final = "etc/ssl/certs/ca-certificates.crt"
_BUNDLED_PIP: Final = re.compile(r"/ensurepip/_bundled/pip-[^/]+\.whl$")
_PIPS_BUNDLE: Final = "pip/_vendor/certifi/cacert.pem"


@dataclass(frozen=True, kw_only=True)
class BuildInputs:
    """What an image was built from: secrets, as files by id, logins of proxies, and the packages of the lock, if known.

    `log` is the build log, which is searched for secrets too; `public` are certificates that images are to have.
    """

    secrets: Mapping[str, Path]
    proxy_logins: tuple[Login, ...] = ()
    log: str = ""
    public: bytes = b""
    packages: tuple[SelectedPackage, ...] = ()
    artifacts: Artifacts = field(default_factory=Artifacts)

    @property
    def places(self) -> str:
        """Where the secrets come from, for users; empty if there are none."""
        return ", ".join([*self.secrets, *(login.place for login in self.proxy_logins)])


class LeakError(Exception):
    """A secret is in the image; `str()` says which one, and where."""


def search_image(archive: ImageArchive, inputs: BuildInputs, raise_if_stopped: Callable[[], None]) -> str:
    """Search the image and the log; return a summary; raise LeakError at the first secret found.

    The function is called at each file, so that it can end the search.
    """
    base, layers = archive.split(f"LABEL {LABELS}.")
    marks = secret_marks(inputs.secrets, [*_ca_bundles(archive, base), inputs.public], inputs.proxy_logins)
    if not marks:
        return "the build had only public certificates, which are in certifi or in the base image"
    _search_texts(marks, archive.config_bytes, inputs.log)
    for attestation in archive.attestations:
        for statement in attestation.blobs.values():
            if found := find_leak_in_json(marks, statement):
                raise LeakError(f"{found} is in an attestation")
    count = _search_layers(archive, layers, marks, inputs, raise_if_stopped)
    places = f"{count} files of {len(layers)} layers, config, history and log"
    return f"searched {places} for {len(marks)} marks of {inputs.places}"


def search_assembled(image: AssembledImage, inputs: BuildInputs) -> str:
    """Search the config, the history and the log of an image whose layers were searched when they were made."""
    marks = secret_marks(inputs.secrets, [inputs.public], inputs.proxy_logins)
    _search_texts(marks, image.config_bytes, inputs.log)
    made = len(image.made)
    return (
        f"searched config, history and log for {len(marks)} marks of {inputs.places}, "
        f"and {made} of {len(image.plan.layers)} layers; the others when they were made"
    )


def _search_texts(marks: Mapping[bytes, str], config: bytes, log: str) -> None:
    """Raise LeakError if a mark is in the config, in the history, which is a part of it, or in the log."""
    if found := find_leak_in_json(marks, config):
        raise LeakError(f"{found} is in the config or history")
    if found := find_mark(marks, log.encode()):
        raise LeakError(f"{found} is in the build log")


def _search_layers(
    archive: ImageArchive,
    layers: Sequence[ArchiveLayer],
    marks: Mapping[bytes, str],
    inputs: BuildInputs,
    raise_if_stopped: Callable[[], None],
) -> int:
    """Search every file, name and link of the layers and return their number; raise LeakError at a secret."""
    count = 0
    records: dict[str, set[str]] = {}
    hits: dict[str, str] = {}
    for layer in layers:
        for entry, content in archive.entries(layer):
            raise_if_stopped()
            count += 1
            if found := find_mark(marks, entry_text(entry)):
                raise LeakError(f"{found} is in the name, link or attributes of /{entry.name} of layer {layer.member}")
            if entry.name.endswith(".dist-info/RECORD"):
                records[f"{layer.member}/{entry.name}"] = recorded_hashes(content)
            if found := find_leak(marks, content):
                hits[record_hash(content)] = f"{found} is in /{entry.name} of layer {layer.member}"
    for hash_, hit in hits.items():
        # A file of a locked wheel is as public as the wheel: botocore contains a CA bundle.
        if not inputs.artifacts.vouch(records, hash_, inputs.packages):
            raise LeakError(hit)
    return count


def _ca_bundles(archive: ImageArchive, layers: Sequence[ArchiveLayer]) -> Iterator[bytes]:
    """The CA bundle in each layer of the base image, at the path that Debian and Alpine use, and those in its pip."""
    for layer in layers:
        for name, content in archive.files(layer):
            if name.removeprefix("./") == _CA_BUNDLE:
                yield content
            elif _BUNDLED_PIP.search(name):
                with contextlib.suppress(zipfile.BadZipFile, KeyError), zipfile.ZipFile(io.BytesIO(content)) as wheel:
                    yield wheel.read(_PIPS_BUNDLE)
