"""What is known of an image's packages from outside of the image: from its layers, or from the lock's wheels."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Final

from pydantic import Field

from builder import http
from builder.errors import RegistryError, VerifyError
from builder.image.render import RenderedImage
from builder.layer.artifact import UnknownArtifactError, fetch_artifact
from builder.layer.assemble import AssembledImage
from builder.layer.store import LayerStore, hex_of
from builder.lock.model import Lock
from builder.lock.url import without_credentials
from builder.parse import Document, MalformedError, parse_toml
from builder.tree import tree_digest, wheel_id

_LANES: Final = 4


class _Wheel(Document):
    """A wheel in a pylock.toml (PEP 751)."""

    name: str | None = None
    url: str | None = None
    path: str | None = None
    size: int | None = None
    hashes: dict[str, str] = Field(default_factory=dict)

    @property
    def filename(self) -> str:
        return self.name or (self.url or self.path or "").partition("#")[0].partition("?")[0].rpartition("/")[2]


class _Package(Document):
    name: str
    version: str | None = None
    wheels: list[_Wheel] = Field(default_factory=list)
    archive: _Wheel | None = None

    @property
    def is_wheel(self) -> bool:
        return bool(self.wheels) or (self.archive is not None and self.archive.filename.endswith(".whl"))


class _Selection(Document):
    """The fields of the image's pylock.toml (PEP 751) that builder reads."""

    packages: list[_Package] = Field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Vouched:
    """What is known: packages with versions (None: any), and the digests that the files of their wheels may have.

    `sources` are the packages that were built. With `is_complete`, the cache may have no other wheels. `proven` are
    wheels (`six-1.17.0`) that were compared with theirs before, in an image that passed, and `stdlib`. `faults` say
    what the lock does not vouch for.
    """

    packages: Mapping[str, str | None]
    sources: tuple[str, ...] = ()
    trees: Mapping[str, Sequence[str]] = field(default_factory=dict)
    is_complete: bool = False
    proven: frozenset[str] = frozenset()
    faults: tuple[str, ...] = ()


def vouched_by_layers(rendered: RenderedImage, image: AssembledImage | None) -> Vouched:
    """What the plan and the layers of an image say, which were inspected when they were made."""
    packages = {package.name: package.version for package in rendered.plan.selection.packages}
    sources = tuple(package.name for package in rendered.plan.selection.packages if not package.is_wheel)
    if image is None or image.trees is None:
        return Vouched(packages=packages, sources=sources)
    return Vouched(
        packages=packages,
        sources=sources,
        trees={name: sorted(each) for name, each in image.trees.items()},
        is_complete=True,
        proven=image.proven,
    )


def vouched_by_lock(text: str, source: str, lock: Lock | None, store: LayerStore) -> Vouched:
    """What the lock's wheels say of the selection that an image has recorded, a pylock.toml.

    A wheel whose files nobody has noted on this machine is downloaded. Without a lock, the wheels are those that the
    selection names. Raises VerifyError if the text is no selection, RegistryError if a wheel cannot be fetched.
    """
    try:
        recorded = parse_toml(_Selection, text).packages
    except MalformedError as error:
        hint = "name an image that `builder build` built"
        raise VerifyError(f"{source} is malformed: {error}", hint=hint) from error
    wheels = [package.wheels[0] for package in recorded if package.wheels]
    known = None if lock is None else _hashes(lock)
    foreign = [wheel for wheel in wheels if known is not None and wheel.hashes.get("sha256") not in known]
    good = [wheel for wheel in wheels if wheel not in foreign and wheel.hashes.get("sha256")]
    stopped = threading.Event()
    trees = http.map_concurrently(lambda wheel: _tree_of(wheel, store, stopped), good, stopped, lanes=_LANES)
    return Vouched(
        packages={package.name: package.version for package in recorded},
        sources=tuple(package.name for package in recorded if not package.is_wheel),
        trees={wheel_id(wheel.filename): [tree] for wheel, tree in zip(good, trees, strict=True) if tree},
        faults=tuple(f"{lock.path.name if lock else 'the lock'} does not have {wheel.filename}" for wheel in foreign),
    )


def _hashes(lock: Lock) -> frozenset[str]:
    """The SHA-256 hashes of all files that the lock lists."""
    return frozenset(_listed_hashes(lock))


def _listed_hashes(lock: Lock) -> Iterator[str]:
    for package in lock.pylock.packages:
        for each in (*(package.wheels or ()), package.sdist, package.archive):
            if each and "sha256" in each.hashes:
                yield each.hashes["sha256"]


def _tree_of(wheel: _Wheel, store: LayerStore, stopped: threading.Event) -> str | None:
    """The digest of a wheel's files: noted on this machine, or by downloading it; None for one that has no URL."""
    sha256 = wheel.hashes["sha256"]
    tree = store.tree_of(sha256)
    if tree is None and wheel.url:
        try:
            with fetch_artifact(wheel.url, wheel.hashes, size=wheel.size, stopped=stopped) as file:
                tree = _tree_of_wheel(wheel, file)
        except UnknownArtifactError as error:
            raise RegistryError(
                f"cannot fetch {without_credentials(wheel.url)}: {error}",
                hint="the files of the image are compared with the lock's wheels; check the network, or SSL_CERT_FILE",
            ) from error
        store.add_tree(sha256, tree)
    return tree


def _tree_of_wheel(wheel: _Wheel, file: IO[bytes]) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            return tree_digest({name: _hash_of_member(archive, name) for name in names})
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise RegistryError(f"{wheel.filename} is no wheel: {error}") from error


def _hash_of_member(archive: zipfile.ZipFile, name: str) -> str:
    with archive.open(name) as member:
        return hex_of(member, "sha256")
