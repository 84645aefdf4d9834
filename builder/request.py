"""A request, read: the files that it names, and what the environment adds.

Beside `oci.credentials`, this is the only module that looks at the working directory and at variables that change what
is built.
"""

from __future__ import annotations

import netrc
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Final

from packaging.utils import canonicalize_name

from builder.contract import CA_SECRET, NETRC_SECRET
from builder.engine.buildx import Provenance
from builder.errors import LockError, UsageError
from builder.lock.model import Lock
from builder.lock.project import default_python, project_name
from builder.lock.read import read_lock
from builder.matrix.file import built_in_matrix, read_matrix
from builder.matrix.model import Matrix, Platform, branch_slug
from builder.matrix.schema import Install
from builder.oci.credentials import configured_proxies
from builder.oci.reference import ImageRef, Mirrors
from builder.oci.registry import Registries
from builder.process import redact
from builder.release.journal import journal_of
from builder.verify.checkout import Checkout

MATRIX_NAME: Final = "matrix.toml"
LOCK_NAMES: Final = ("uv.lock", "pylock.toml", "requirements.txt")

# Docker's predefined build arguments: they reach RUN, and stay out of the image and its history.
PROXY_ARGS: Final = tuple(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY")
    for name in (upper, upper.lower())
)

_SECRET_VARIABLES: Final[Mapping[str, str]] = {CA_SECRET: "SSL_CERT_FILE", NETRC_SECRET: "NETRC"}


@dataclass(frozen=True, kw_only=True)
class Request:
    """Which cells of which matrix, from which lock: what the command line says, nothing read yet."""

    matrix: Path | None = None
    lock: Path | None = None
    only: tuple[str, ...] = ()
    platform: str | None = None
    mirrors: tuple[str, ...] = ()
    branch: str | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """The command line options that repeat this request, without the choice of cells."""
        pairs = [
            ("--file", self.matrix), ("--lock", self.lock), ("--platform", self.platform), ("--branch", self.branch),
            *(("--mirror", mirror) for mirror in self.mirrors),
        ]  # fmt: skip
        return tuple(word for option, value in pairs if value for word in (option, str(value)))


@dataclass(frozen=True, kw_only=True)
class Project:
    """A request with its files read: the cells to make, the lock that they install, and the mirrors in force."""

    matrix: Matrix
    lock: Lock
    mirrors: Mirrors

    @property
    def image_repository(self) -> ImageRef:
        """Where the images are tagged: the repository they are pushed to, or a local name after the project."""
        return published_repository(self.matrix) or ImageRef.from_str(_local_name(self.lock))


def read_project(request: Request) -> Project:
    """Read the matrix and the lock; raise MatrixError, LockError or UsageError."""
    path = request.lock or _lock_here()
    matrix = _read_matrix_file(request.matrix)
    lock = read_lock(path, matrix.install if matrix else Install())
    matrix = _narrowed(matrix or built_in_matrix(default_python(lock)), request)
    return Project(matrix=matrix, lock=lock, mirrors=_mirrors(matrix, request))


def read_cells(request: Request) -> tuple[Matrix, Mirrors]:
    """Read the matrix alone, and the mirrors in force; without a matrix, the lock decides which one is meant."""
    matrix = _read_matrix_file(request.matrix)
    if matrix is None:
        project = read_project(request)
        return project.matrix, project.mirrors
    matrix = _narrowed(matrix, request)
    return matrix, _mirrors(matrix, request)


def read_checkout(matrix: Path | None, lock: Path | None) -> Checkout | None:
    """The checkout to verify an image with: of the lock that is named, or lies here; None where there is neither."""
    if lock is None and not any(Path(name).exists() for name in LOCK_NAMES):
        return None
    file = _read_matrix_file(matrix)
    return Checkout.of(read_lock(lock or _lock_here(), file.install if file else Install()))


def read_journal_tag(repository: str | None, matrix: Path | None, branch: str | None) -> tuple[ImageRef, Registries]:
    """Where the promotions of a repository, or of a branch's tags in it, are noted; no lock is read for it.

    With a repository the matrix is not read either.
    """
    file = None if repository else _read_matrix_file(matrix)
    target = ImageRef.from_str(repository).without_tag() if repository else _pushed_to(file, "roll back")
    registries = Registries(Mirrors(), insecure=file.insecure if file else ())
    return journal_of(target, branch_slug(branch) if branch else ""), registries


def open_registries(matrix: Matrix, mirrors: Mirrors, *, stopped: threading.Event | None = None) -> Registries:
    """The registries of a run, through its mirrors; `stopped` ends every wait for them."""
    return Registries(mirrors, insecure=matrix.insecure, stopped=stopped)


def published_repository(matrix: Matrix) -> ImageRef | None:
    """Where the images are pushed: the matrix's repository, else $CI_REGISTRY_IMAGE/ci; None where neither is set."""
    return _repository(matrix.repository)


def require_repository(purpose: str, matrix: Matrix) -> ImageRef:
    """Where the images are pushed; raise UsageError, which names the purpose, where that is not set."""
    return _pushed_to(matrix, purpose)


def today() -> date:
    """The day whose system packages the images get: that of SOURCE_DATE_EPOCH where set (UTC)."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    now = datetime.fromtimestamp(int(epoch), timezone.utc) if epoch.isdigit() else datetime.now(timezone.utc)
    return now.date()


def proxy_arguments() -> tuple[str, ...]:
    """The names of the proxy variables that are set; builds get them as arguments."""
    return tuple(name for name in PROXY_ARGS if os.environ.get(name))


def read_build_secrets() -> dict[str, Path]:
    """The files that builds get as secret mounts: SSL_CERT_FILE and NETRC, where set.

    Raises UsageError where one is set and cannot be read.
    """
    secrets = {}
    for name, variable in _SECRET_VARIABLES.items():
        if os.environ.get(variable):
            path = Path(os.environ[variable])
            if not path.is_file() or not os.access(path, os.R_OK):
                raise UsageError(f"{variable} names {path}, which cannot be read", hint=f"correct or unset {variable}")
            secrets[name] = path
    if NETRC_SECRET in secrets:
        _check_netrc(secrets[NETRC_SECRET])
    return secrets


def check_provenance(provenance: Provenance | None) -> None:
    """Raise UsageError where provenance would publish a secret: mode max includes the values of build arguments."""
    if provenance != "max":
        return
    values = {name: os.environ.get(name, "") for name in PROXY_ARGS} | configured_proxies()
    for name, value in values.items():
        if redact(value) != value:
            raise UsageError(
                f"{name} has a password, which --provenance=max would publish",
                hint="use --provenance=min, which leaves build arguments out",
            )


def cache_folder() -> Path:
    """Where builder keeps what later runs can use; deleting it costs only time."""
    if os.environ.get("BUILDER_CACHE_DIR"):
        return Path(os.environ["BUILDER_CACHE_DIR"])
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "builder"


def default_log_folder() -> Path:
    """Where build logs are kept unless --log-dir says otherwise."""
    return cache_folder() / "logs"


def record_folder() -> Path:
    """Where it is noted which images were verified."""
    return cache_folder() / "verified"


def _check_netrc(path: Path) -> None:
    try:
        netrc.netrc(str(path))
    except netrc.NetrcParseError as error:  # its text may have a password
        raise UsageError(f"NETRC names {path}, which is not a netrc file: see line {error.lineno}") from None
    except ValueError as error:
        raise UsageError(f"NETRC names {path}, which is not UTF-8 text") from error


def _read_matrix_file(path: Path | None) -> Matrix | None:
    if path is None and not Path(MATRIX_NAME).exists():
        return None
    return read_matrix(path or Path(MATRIX_NAME))


def _narrowed(matrix: Matrix, request: Request) -> Matrix:
    if request.branch is not None:
        matrix = matrix.on_branch(request.branch)
    matrix = matrix.only(request.only)
    return matrix.on(Platform.from_str(request.platform)) if request.platform else matrix


def _mirrors(matrix: Matrix, request: Request) -> Mirrors:
    of_environment = Mirrors.from_strs([os.environ.get("BUILDER_MIRRORS", "")])
    return Mirrors.from_strs(request.mirrors).over(of_environment).over(matrix.mirrors)


def _lock_here() -> Path:
    for name in LOCK_NAMES:
        if Path(name).exists():
            return Path(name)
    raise LockError(f"no lock file here ({', '.join(LOCK_NAMES)})", hint="name it with --lock; `uv lock` writes one")


def _repository(named: str | None) -> ImageRef | None:
    if named:
        return ImageRef.from_str(named)
    if os.environ.get("CI_REGISTRY_IMAGE"):
        return ImageRef.from_str(f"{os.environ['CI_REGISTRY_IMAGE']}/ci")
    return None


def _pushed_to(matrix: Matrix | None, purpose: str) -> ImageRef:
    repository = _repository(matrix.repository if matrix else None)
    if repository is None:
        raise UsageError(
            f"there is no repository to {purpose}",
            hint='name one in the matrix (repository = "registry.example.com/acme/ci") or set CI_REGISTRY_IMAGE',
        )
    return repository


def _local_name(lock: Lock) -> str:
    name = canonicalize_name(project_name(lock))
    return f"{re.sub('[^a-z0-9-]', '', name).strip('-') or 'project'}-ci"
