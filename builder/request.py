"""Requests, and the files and environment variables that they refer to.

Apart from `folders`, `secret`, `lock.discovery` and `oci.credentials`, no other module reads the working directory,
or variables that affect what is built.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timezone
from pathlib import Path, PurePosixPath

from packaging.utils import canonicalize_name

from builder.contract import LAYERS_NAME
from builder.errors import UsageError
from builder.folders import cache_folder
from builder.http import use_index_mirrors
from builder.index_mirror import IndexMirrors
from builder.layer.find import LayerRepositories
from builder.lock.discovery import MATRIX_NAME, find_lock, find_matrix, nearest_lock
from builder.lock.freshness import check_locked, outdated_reason
from builder.lock.local import notes_on
from builder.lock.model import Lock
from builder.lock.project import project_name, uv_settings_of
from builder.lock.python import choose_python
from builder.lock.read import lock_kind, read_lock
from builder.lock.script import script_of
from builder.lock.text import entries
from builder.lock.uv_python import resolve_pythons
from builder.login import hand_over_logins
from builder.matrix.file import built_in_matrix, read_matrix
from builder.matrix.model import Cell, Matrix, Platform, branch_slug
from builder.matrix.schema import Install, Names
from builder.oci.reference import ImageRef, Mirrors
from builder.oci.registry import Registries
from builder.release.journal import journal_of
from builder.verify.checkout import Checkout


@dataclass(frozen=True, kw_only=True)
class Request:
    """The cells, the matrix and the lock that the command line names; no file has been read yet."""

    matrix: Path | None = None
    lock: Path | None = None
    only: tuple[str, ...] = ()
    platform: str | None = None
    mirrors: tuple[str, ...] = ()
    branch: str | None = None
    locked: bool = False
    packages: tuple[str, ...] = ()
    all_packages: bool = False
    only_groups: tuple[str, ...] = ()

    @property
    def options(self) -> tuple[str, ...]:
        """The command line options of this request, without the choice of cells."""
        pairs = [
            ("--file", self.matrix), ("--lock", self.lock), ("--platform", self.platform), ("--branch", self.branch),
            *(("--mirror", mirror) for mirror in self.mirrors), *(("--package", name) for name in self.packages),
            *(("--only-group", name) for name in self.only_groups),
        ]  # fmt: skip
        words = [word for option, value in pairs if value for word in (option, str(value))]
        flags = {"--locked": self.locked, "--all-packages": self.all_packages}
        return (*words, *(flag for flag, is_set in flags.items() if is_set))

    def choose(self, install: Install) -> Install:
        """What to install: what the matrix says, unless the command line says otherwise."""
        if self.packages and self.all_packages:
            raise UsageError("--package with --all-packages", hint="omit one of the two")
        chosen: Names = "all" if self.all_packages else self.packages or install.packages
        if self.only_groups:
            only = {"packages": chosen, "only-groups": self.only_groups, "allow-source": install.allow_source}
            return Install.model_validate({**only, "cache-groups": install.cache_groups})
        return install.model_copy(update={"packages": chosen})


@dataclass(frozen=True, kw_only=True)
class Project:
    """The files of a request: the matrix with the chosen cells, their locks by profile, and the mirrors in effect.

    `notes` are for the user: what builder chose, and why.
    """

    matrix: Matrix
    locks: Mapping[str, Lock]
    mirrors: Mirrors
    notes: tuple[str, ...] = ()

    @property
    def lock(self) -> Lock:
        """The lock of its first cell."""
        return next(iter(self.locks.values()))

    @property
    def locked_cells(self) -> dict[Cell, Lock]:
        """Its cells in order, each with its lock."""
        return {cell: self.locks[cell.profile] for cell in self.matrix.cells}

    def with_cells(self, cells: Sequence[Cell]) -> Project:
        """The same project with only these cells of its matrix."""
        return replace(self, matrix=self.matrix.with_cells(cells))

    @property
    def image_repository(self) -> ImageRef:
        """The repository of the images' tags: the one to push to, or a local name derived from the project."""
        return published_repository(self.matrix) or ImageRef.from_str(_local_name(self.lock))


def read_project(request: Request) -> Project:
    """Read the matrix and the locks; raise MatrixError, LockError or UsageError."""
    matrix = _read_matrix_file(request.matrix)
    if matrix is None:
        return _read_project_without_matrix(request)
    matrix = resolve_pythons(_narrowed(matrix, request), cache_folder())
    locks = _read_locks(matrix, request)
    notes = (*_warnings(locks.values(), request), *_other_uv(matrix, locks.values()), *notes_on(locks))
    return Project(matrix=matrix, locks=locks, mirrors=_mirrors(matrix, request), notes=notes)


def _read_project_without_matrix(request: Request) -> Project:
    path = request.lock or find_lock()
    lock = _read_lock(path, None, "", request)
    python = choose_python(lock, lambda version: _on_platform(built_in_matrix(version), request).cells[0])
    uv = lock.uv or lock.installed_uv
    matrix = _narrowed(built_in_matrix(python.version, uv=uv), request)
    locks = {"": lock}
    notes = (*_warnings(locks.values(), request), *notes_on(locks))
    notes += (f"Python {python.version}, because there is no {MATRIX_NAME}: {python.reason}",)
    notes += (f"uv {uv}, because the lock {'requires' if lock.uv else 'installs'} it",) if uv else ()
    return Project(matrix=matrix, locks=locks, mirrors=_mirrors(matrix, request), notes=notes)


def read_cells(request: Request) -> tuple[Matrix, Mirrors]:
    """Read the matrix alone, and the mirrors in effect; if there is no matrix, derive it from the lock."""
    matrix = _read_matrix_file(request.matrix)
    if matrix is None:
        project = read_project(request)
        return project.matrix, project.mirrors
    matrix = _narrowed(matrix, request)
    return matrix, _mirrors(matrix, request)


def read_checkout(matrix: Path | None, lock: Path | None, cell: str = "") -> Checkout | None:
    """Read the checkout to verify an image with: of the named lock, or the nearest one; None if there is none.

    If the matrix has the cell with this name, it is that of the cell's profile.
    """
    file = _read_matrix_file(matrix)
    profile = next((each.profile for each in file.cells if cell in {each.name, each.tag}), "") if file else ""
    path = _lock_path(file, profile, lock) or nearest_lock()
    return Checkout.of(_read_lock(path, file, profile, Request())) if path else None


def read_matrix_or_none(path: Path | None) -> Matrix | None:
    """Read the named matrix, or the nearest one; None if there is none."""
    return _read_matrix_file(path)


def _warnings(locks: Iterable[Lock], request: Request) -> tuple[str, ...]:
    """A warning for each file that is outdated; raise LockError instead if only a current one will do."""
    files = {lock.path: lock for lock in locks}.values()
    if request.locked:
        for lock in files:
            check_locked(lock)
        return ()
    return tuple(f"warning: {outdated}" for lock in files if (outdated := outdated_reason(lock)))


def _other_uv(matrix: Matrix, locks: Iterable[Lock]) -> Iterator[str]:
    """A warning for each lock that installs another uv than the images': the cache is in the form of the images' uv."""
    found = dict.fromkeys((lock.path, lock.installed_uv) for lock in locks)  # profiles of one file choose differently
    for path, uv in found:
        if uv not in (None, matrix.uv.tag):
            yield (
                f"warning: {path} installs uv {uv}, which jobs then run, and the images' cache is that of "
                f'uv {matrix.uv.tag}; write uv = "{uv}" in {matrix.source}'
            )


def _read_locks(matrix: Matrix, request: Request) -> dict[str, Lock]:
    """The lock of each profile of the matrix's cells, narrowed to what the profile installs."""
    locks = {}
    for profile in dict.fromkeys(cell.profile for cell in matrix.cells):
        path = _lock_path(matrix, profile, request.lock) or find_lock()
        locks[profile] = _read_lock(path, matrix, profile, request)
    return locks


def _lock_path(matrix: Matrix | None, profile: str, named: Path | None) -> Path | None:
    """The path of a profile's own lock, which the matrix names relative to itself; else the one that is named."""
    chosen = matrix.profiles.get(profile) if matrix else None
    return Path(matrix.source).parent / chosen.lock if matrix and chosen and chosen.lock else named


def _read_lock(path: Path, matrix: Matrix | None, profile: str, request: Request) -> Lock:
    install = request.choose(matrix.install_of(profile) if matrix else Install())
    _hand_over_logins(path, matrix)
    use_index_mirrors(matrix.index_mirrors if matrix else IndexMirrors())
    own = matrix.profiles[profile].lock if matrix and profile in matrix.profiles else None
    if matrix and own and not path.exists():
        what = f"{matrix.source}: profiles.{profile}.lock: there is no {path}"
        raise UsageError(what, hint="its path is relative to the matrix; `uv lock` writes one")
    lock = read_lock(path, install, cache_folder(), uv=matrix.uv.tag if matrix else None)
    folder = PurePosixPath(own or "").parent
    cached = tuple(replace(each, allows_source=install.allow_source) for each in lock.cached)
    return replace(
        lock, allows_source=install.allow_source, cached=cached, folder="" if folder == PurePosixPath() else str(folder)
    )


def _hand_over_logins(path: Path, matrix: Matrix | None) -> None:
    """Make the logins of the lock's indexes, and those that the matrix declares, known to all that fetches packages."""
    is_script = lock_kind(path) == "script"
    if is_script and not script_of(path).is_file():
        return  # what reads the lock reports it
    source, settings = uv_settings_of(path, is_script=is_script)
    hand_over_logins(entries(source, settings, "index", dict), matrix.credentials if matrix else ())


def read_journal_tag(repository: str | None, matrix: Path | None, branch: str | None) -> tuple[ImageRef, Registries]:
    """Return the journal's tag for a repository, or for a branch in it, and the registries. Reads no lock.

    With a repository it does not read the matrix either. Raises UsageError if no repository is known.
    """
    target, registries = read_repository("roll back in", repository, matrix)
    return journal_of(target, branch_slug(branch) if branch else ""), registries


def read_repository(purpose: str, repository: str | None, matrix: Path | None) -> tuple[ImageRef, Registries]:
    """Return the named repository, or that of the matrix, and the registries. Reads no lock.

    With a name it does not read the matrix either. Raises UsageError, with the purpose, if no repository is known.
    """
    file = None if repository else _read_matrix_file(matrix)
    if repository:
        target = ImageRef.from_str(repository).without_tag()
    else:
        target = _require_repository(file, purpose, option="name one with --repository, ")
    return target, Registries(Mirrors(), insecure=file.insecure if file else ())


def open_registries(matrix: Matrix, mirrors: Mirrors, *, stopped: threading.Event | None = None) -> Registries:
    """Return a client for the registries and mirrors of a run; `stopped` ends its requests."""
    return Registries(mirrors, insecure=matrix.insecure, stopped=stopped)


def published_repository(matrix: Matrix) -> ImageRef | None:
    """The repository to push to: the matrix's, else $CI_REGISTRY_IMAGE/ci; None if neither is set."""
    return _repository(matrix.repository)


def layer_repositories(matrix: Matrix) -> LayerRepositories | None:
    """Where layers are in registries; None if the images have no repository there."""
    images = published_repository(matrix)
    if images is None:
        return None
    named = matrix.layers or f"{images.name}/{LAYERS_NAME}"
    return LayerRepositories(images=images, layers=ImageRef.from_str(named), branch=matrix.branch)


def require_repository(purpose: str, matrix: Matrix) -> ImageRef:
    """The repository to push to; raise UsageError, which names the purpose, if none is set."""
    return _require_repository(matrix, purpose)


def require_all_platforms(request: Request, matrix: Matrix) -> None:
    """Raise UsageError if the request is for one of several platforms: a tag moves for all of them at once."""
    if request.platform and matrix.cells[0].platforms:
        raise UsageError(f"--platform, but tags have images for {len(matrix.cells[0].platforms)}", hint="omit it")


def today() -> date:
    """The current day in UTC, or that of SOURCE_DATE_EPOCH, which decides when system packages are refreshed."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not epoch.isdecimal():
        return datetime.now(timezone.utc).date()
    try:
        return datetime.fromtimestamp(int(epoch), timezone.utc).date()
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            f"SOURCE_DATE_EPOCH={epoch} is not a date: {error}", hint="set it to seconds since 1970"
        ) from error


def _read_matrix_file(path: Path | None) -> Matrix | None:
    path = path or find_matrix()
    return read_matrix(path) if path else None


def _narrowed(matrix: Matrix, request: Request) -> Matrix:
    if request.branch is not None:
        matrix = matrix.on_branch(request.branch)
    return _on_platform(matrix.only(request.only), request)


def _on_platform(matrix: Matrix, request: Request) -> Matrix:
    return matrix.on(Platform.from_str(request.platform)) if request.platform else matrix


def _mirrors(matrix: Matrix, request: Request) -> Mirrors:
    return _named_mirrors("--mirror", request.mirrors).over(mirrors_of_environment()).over(matrix.mirrors)


def mirrors_of_environment() -> Mirrors:
    """The mirrors in BUILDER_MIRRORS; raise UsageError if one is none."""
    return _named_mirrors("BUILDER_MIRRORS", [os.environ.get("BUILDER_MIRRORS", "")])


def _named_mirrors(where: str, texts: Iterable[str]) -> Mirrors:
    try:
        return Mirrors.from_strs(texts)
    except UsageError as error:
        raise UsageError(f"{where}: {error.what}", hint=error.hint) from error


def _repository(named: str | None) -> ImageRef | None:
    if named:
        return ImageRef.from_str(named)
    if os.environ.get("CI_REGISTRY_IMAGE"):
        return ImageRef.from_str(f"{os.environ['CI_REGISTRY_IMAGE']}/ci")
    return None


def _require_repository(matrix: Matrix | None, purpose: str, *, option: str = "") -> ImageRef:
    repository = _repository(matrix.repository if matrix else None)
    if repository is None:
        raise UsageError(
            f"there is no repository to {purpose}",
            hint=f'{option}set one in the matrix (repository = "registry.example.com/acme/ci"), '
            "or set CI_REGISTRY_IMAGE",
        )
    return repository


def _local_name(lock: Lock) -> str:
    name = canonicalize_name(project_name(lock))
    return f"{re.sub('[^a-z0-9-]', '', name).strip('-') or 'project'}-ci"
