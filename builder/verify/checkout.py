"""A project's files as a CI runner checks them out, in a folder below /builds.

Files that git ignores are left out. Outside a git repository, all files are included except caches and environments.
"""

from __future__ import annotations

import contextlib
import io
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final

from builder.contract import BUILDS, PROBES, PROJECT
from builder.errors import CommandError
from builder.lock.model import Lock
from builder.process import run

_EXCLUDED_FOLDERS: Final = {
    ".git",
    ".venv",
    "venv",
    "node_modules",
    "__pycache__",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".tox",
}
_ALWAYS_INCLUDED: Final = ("uv.lock", "pyproject.toml", "uv.toml")


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """A project to check out: `top` is its repository, `workdir` the lock's folder relative to `top`."""

    top: Path
    workdir: PurePosixPath
    lock: Lock

    @classmethod
    def of(cls, lock: Lock) -> Checkout:
        """The checkout of the repository that contains the lock."""
        folder = lock.project.resolve()
        top = _git_top(folder) or folder
        return cls(top=top, workdir=PurePosixPath(folder.relative_to(top).as_posix()), lock=lock)

    @property
    def path(self) -> str:
        """The absolute path of the lock's folder in a job."""
        return str(PurePosixPath(BUILDS, PROJECT) / self.workdir)


@contextlib.contextmanager
def checkout_tar(checkout: Checkout | None, files: Mapping[str, bytes] | None = None) -> Iterator[IO[bytes]]:
    """Yield a tar for /builds with the checkout, if any, and other files; writable by every user, as with a runner."""
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w", dereference=False) as tar:
            _add_folder(tar, PROBES)
            for name, text in (files or {}).items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(text), 0o644
                tar.addfile(entry, io.BytesIO(text))
            _add_folder(tar, PROJECT)
            if checkout:
                _add_project(tar, checkout)
        file.seek(0)
        yield file


def _add_project(tar: tarfile.TarFile, checkout: Checkout) -> None:
    names = _git_files(checkout.top)
    files = {checkout.top / name for name in names} if names is not None else set(_walk(checkout.top))
    folder = checkout.top / checkout.workdir
    files |= {folder / name for name in _ALWAYS_INCLUDED if (folder / name).is_file()} | {
        folder / checkout.lock.path.name
    }
    folders = {parent for path in files for parent in path.relative_to(checkout.top).parents} - {Path()}
    for relative in sorted(folders):
        _add_folder(tar, f"{PROJECT}/{relative.as_posix()}")
    for path in sorted(files):
        if path.is_symlink() or path.is_file():
            _add(tar, path, f"{PROJECT}/{path.relative_to(checkout.top).as_posix()}")
    if names is not None:
        _add_history(tar, checkout.top)


def _add_history(tar: tarfile.TarFile, top: Path) -> None:
    """Add a shallow `.git`, as a runner fetches it: build backends derive versions from it."""
    with tempfile.TemporaryDirectory(prefix="builder-") as scratch:
        clone = Path(scratch, "clone")
        cloned = run(["git", "clone", "--quiet", "--no-checkout", "--depth", "1", top.as_uri(), str(clone)])
        if cloned.returncode:
            return  # the repository has no commit yet
        run(["git", "reset", "--quiet"], cwd=clone)
        for path in sorted((clone / ".git").rglob("*")):
            name = f"{PROJECT}/{path.relative_to(clone).as_posix()}"
            if path.is_dir():
                _add_folder(tar, name)
            else:
                _add(tar, path, name)


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    entry = tar.gettarinfo(path, name)
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    if entry.isreg():
        entry.mode |= 0o666
        with path.open("rb") as content:
            tar.addfile(entry, content)
    else:
        tar.addfile(entry)


def _add_folder(tar: tarfile.TarFile, name: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.DIRTYPE
    entry.mode = 0o777
    tar.addfile(entry, io.BytesIO())


def _walk(top: Path) -> Iterator[Path]:
    for path in sorted(top.iterdir()):
        if path.is_dir() and not path.is_symlink():
            if path.name not in _EXCLUDED_FOLDERS:
                yield from _walk(path)
        else:
            yield path


def _git_top(folder: Path) -> Path | None:
    try:
        answer = run(["git", "rev-parse", "--show-toplevel"], cwd=folder)
    except CommandError:
        return None
    return Path(answer.stdout.strip()).resolve() if answer.returncode == 0 else None


def _git_files(top: Path) -> list[str] | None:
    if not (top / ".git").exists():
        return None
    answer = run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=top)
    return [name for name in answer.stdout.split("\0") if name] if answer.returncode == 0 else None
