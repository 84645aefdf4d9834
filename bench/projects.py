"""The projects of `change`: the example, and a large real lock; their matrices, and locks with one package bumped."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tomli
import tomli_w
import uv

from bench.figures import say
from bench.plan import LOCKS
from bench.subject import EXAMPLE, ROOT, locked_example
from builder.errors import BuilderError
from builder.lock.model import SelectedPackage
from builder.lock.select import select
from builder.process import run
from builder.request import Request, read_project

PROJECTS: Final = ("webshop", "large")
PYTHONS: Final = ("3.11", "3.13")
PYTHON: Final = "3.13"  # that of the one cell
BASE: Final = "bookworm-slim"  # in both projects

# The largest of the shared locks that installs from the public index alone, once its one package without wheels is out.
_LARGE: Final = "letta-ai__letta"
_WITHOUT: Final = "demjson3"
_DEBIAN: Final = {
    "bookworm-slim": {"image": "docker.io/library/python:{python}-slim-bookworm", "family": "debian"},
    "trixie-slim": {"image": "docker.io/library/python:{python}-slim-trixie", "family": "debian"},
}


@dataclass(frozen=True, kw_only=True)
class Project:
    """A locked project in a folder of its own, and its two bases: public image and family, by name."""

    name: str
    folder: Path
    uv_version: str
    install: Mapping[str, Any]
    bases: Mapping[str, Mapping[str, str]]

    @property
    def lock(self) -> Path:
        """Its uv.lock."""
        return self.folder / "uv.lock"

    def write_matrix(
        self, path: Path, repository: str, bases: Mapping[str, Mapping[str, str]], pythons: Sequence[str]
    ) -> Path:
        """Write a matrix of these Pythons on these bases, and return its path."""
        table = {"repository": repository, "python": list(pythons), "base": list(bases), "uv": self.uv_version}
        path.write_text(tomli_w.dumps({**table, "install": self.install, "bases": bases}), encoding="utf-8")
        return path


def open_project(name: str, scratch: Path) -> Project | None:
    """Copy and lock a project; None if it is the large one, and there are no shared locks next to the repository."""
    table = tomli.loads((EXAMPLE / "matrix.toml").read_text(encoding="utf-8"))
    if name == "webshop":
        folder = locked_example(scratch)
        return Project(name=name, folder=folder, uv_version=table["uv"], install=table["install"], bases=table["bases"])
    if not (LOCKS / _LARGE).is_dir():
        return None
    say(f"locking {_LARGE}")
    folder = scratch / "large"
    run([sys.executable, str(ROOT.parent / "shared/locks/restore"), str(LOCKS / _LARGE), str(folder)]).check("restore")
    shutil.rmtree(folder / "expected", ignore_errors=True)
    (folder / ".python-version").unlink(missing_ok=True)
    (folder / "README.md").touch()  # its build system wants one
    run([uv.find_uv_bin(), "remove", "--no-sync", _WITHOUT], cwd=folder).check("uv remove")
    return Project(name=name, folder=folder, uv_version=table["uv"], install={}, bases=_DEBIAN)


@dataclass(frozen=True, kw_only=True)
class Bump:
    """A lock that differs from the project's in the version of one package; `size` is in bytes, that of its wheel."""

    name: str
    size: int
    lock: bytes


def bumps(project: Project, matrix: Path) -> Iterator[Bump]:
    """Yield locks with one package bumped, those first whose wheel is nearest to the median in size.

    The other version is the newest before the locked one: a bump backwards, which costs the same.
    """
    before = project.lock.read_bytes()
    packages = _selected(project, matrix)
    sizes = sorted(package.size or 0 for package in packages.values())
    median = sizes[len(sizes) // 2]
    for package in sorted(packages.values(), key=lambda each: (abs((each.size or 0) - median), each.name)):
        argv = [uv.find_uv_bin(), "lock", "--quiet", "--upgrade-package", f"{package.name}<{package.version}"]
        try:
            changed = (
                _changed(packages, _selected(project, matrix)) if not run(argv, cwd=project.folder).returncode else ()
            )
            after = project.lock.read_bytes()
        except BuilderError:  # it cannot be installed in this cell
            changed = ()
        finally:
            project.lock.write_bytes(before)
        if changed == (package.name,):
            yield Bump(name=package.name, size=package.size or 0, lock=after)


def _selected(project: Project, matrix: Path) -> dict[str, SelectedPackage]:
    read = read_project(Request(matrix=matrix, lock=project.lock))
    return {package.name: package for package in select(read.lock, read.matrix.cells[0]).packages}


def _changed(before: Mapping[str, SelectedPackage], after: Mapping[str, SelectedPackage]) -> tuple[str, ...]:
    """The names of packages that differ, all of which have wheels; nothing if others came or went."""
    if before.keys() != after.keys() or any(package.artifact != "wheel" for package in after.values()):
        return ()
    return tuple(name for name in before if before[name] != after[name])
