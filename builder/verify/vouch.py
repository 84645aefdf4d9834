"""What is known of an image's packages from outside of the image: from its layers, or from the lock's wheels."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Annotated, Final

from packaging.pylock import PackageArchive
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from pydantic import Field, StringConstraints

from builder import http
from builder.errors import RegistryError, VerifyError
from builder.image.render import RenderedImage
from builder.layer.artifact import UnknownArtifactError, fetch_artifact
from builder.layer.assemble import AssembledImage
from builder.layer.store import LayerStore, hex_of
from builder.lock.choice import policy_of
from builder.lock.model import Lock
from builder.lock.url import without_credentials
from builder.lock.wheel import archive_name
from builder.parse import Document, MalformedError, parse_toml
from builder.tree import tree_digest, wheel_id

_LANES: Final = 4


class _Artifact(Document):
    """A wheel, an sdist or an archive in a pylock.toml (PEP 751)."""

    name: str | None = None
    url: str | None = None
    path: str | None = None
    size: int | None = None
    hashes: dict[str, Annotated[str, StringConstraints(pattern="^[0-9a-fA-F]+$")]] = Field(default_factory=dict)

    @property
    def filename(self) -> str:
        return self.name or (self.url or self.path or "").partition("#")[0].partition("?")[0].rpartition("/")[2]


class _Commit(Document):
    commit: str = Field("", alias="commit-id")


class _Package(Document):
    name: str
    version: str | None = None
    wheels: list[_Artifact] = Field(default_factory=list)
    archive: _Artifact | None = None
    sdist: _Artifact | None = None
    vcs: _Commit | None = None

    @property
    def artifact(self) -> _Artifact | None:
        """What it was installed from; None if that is no file."""
        return self.wheels[0] if self.wheels else self.archive or self.sdist

    @property
    def is_wheel(self) -> bool:
        return self.artifact is not None and self.artifact.filename.endswith(".whl")


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
    listed = None if lock is None else _listed(lock)
    faults = [fault for package in recorded if (fault := _fault(package, lock, listed))]
    wheels = [] if faults else [_vouched(package, listed) for package in recorded if package.is_wheel]
    good = [wheel for wheel in wheels if "sha256" in wheel.hashes]
    stopped = threading.Event()
    trees = http.map_concurrently(lambda wheel: _tree_of(wheel, store, stopped), good, stopped, lanes=_LANES)
    return Vouched(
        packages={package.name: package.version for package in recorded},
        sources=tuple(package.name for package in recorded if not package.is_wheel),
        trees={wheel_id(wheel.filename): [tree] for wheel, tree in zip(good, trees, strict=True) if tree},
        faults=tuple(faults),
    )


@dataclass(frozen=True, kw_only=True)
class _Listed:
    """What a lock has: files by their SHA-256, each with its package, and what else packages are installed from.

    `others` are packages with git's commit, or with nothing for a file without a hash; `portable` are wheels that run
    anywhere, by name and version.
    """

    files: Mapping[str, tuple[str, _Artifact]]
    others: frozenset[tuple[str, str]]
    portable: Mapping[str, str]


def _listed(lock: Lock) -> _Listed:
    files: dict[str, tuple[str, _Artifact]] = {}
    others, portable, policy = set(), {}, policy_of(lock)
    for package in lock.pylock.packages:
        if package.vcs:
            others.add((package.name, package.vcs.commit_id))
        for each in (*(package.wheels or ()), package.sdist, package.archive):
            if each and "sha256" not in each.hashes:
                others.add((package.name, ""))
            elif each:
                name = archive_name(each) if isinstance(each, PackageArchive) else each.filename
                known = _Artifact(name=name, url=each.url, size=each.size, hashes=dict(each.hashes))
                files[each.hashes["sha256"]] = package.name, known
                if name.endswith("py3-none-any.whl") and not policy.forbids_wheel(package.name):
                    portable[f"{package.name} {package.version}"] = name
    return _Listed(files=files, others=frozenset(others), portable=portable)


def _fault(package: _Package, lock: Lock | None, listed: _Listed | None) -> str:
    """Say what is wrong with what an image says that it has of a package; nothing, if the lock vouches for it."""
    file = package.artifact
    if lock is None or listed is None:
        return f"{package.name} is not what {file.filename} has" if file and not _is_of(package, file) else ""
    sha256 = file.hashes.get("sha256", "") if file else ""
    commit = package.vcs.commit if package.vcs else ""
    known = listed.files.get(sha256)
    if not (known and known[0] == package.name if sha256 else (package.name, commit) in listed.others):
        return f"{lock.path.name} does not have {file.filename if file else package.name}"
    wheel = "" if package.is_wheel else listed.portable.get(f"{package.name} {package.version}", "")
    return f"{package.name} was built from source, although {lock.path.name} has {wheel}" if wheel else ""


def _is_of(package: _Package, file: _Artifact) -> bool:
    """Whether a wheel has the name and version of the package."""
    if not package.is_wheel:
        return True
    try:
        name, version, *_ = parse_wheel_filename(file.filename)
        return name == package.name and package.version in (None, str(version))
    except InvalidWheelFilename:
        return False


def _vouched(package: _Package, listed: _Listed | None) -> _Artifact:
    """The wheel of a package as the lock has it: its name and address, not those that the image says."""
    file = package.artifact
    assert file is not None  # noqa: S101 - it is a wheel
    sha256 = file.hashes.get("sha256", "")
    return listed.files[sha256][1] if listed and sha256 in listed.files else file


def _tree_of(wheel: _Artifact, store: LayerStore, stopped: threading.Event) -> str | None:
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


def _tree_of_wheel(wheel: _Artifact, file: IO[bytes]) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            return tree_digest({name: _hash_of_member(archive, name) for name in names})
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise RegistryError(f"{wheel.filename} is no wheel: {error}") from error


def _hash_of_member(archive: zipfile.ZipFile, name: str) -> str:
    with archive.open(name) as member:
        return hex_of(member, "sha256")
