"""The Pythons that uv installs: which exact one a cell gets is asked of the uv that the matrix bakes.

uv knows its Pythons by heart. A company's own list (`python-downloads-json-url` in uv's user settings, or the variable)
takes its place.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from packaging.version import InvalidVersion, Version

from builder.errors import CommandError, MatrixError, UsageError
from builder.lock.uv import uv_program
from builder.matrix.interpreter import UvPython
from builder.matrix.model import Cell, Matrix
from builder.parse import Document, MalformedError, parse_value
from builder.process import Completed, run
from builder.redaction import redact

# What says where uv finds Pythons; of all other variables of uv's, builder decides itself what they should be.
UV_PYTHON_VARIABLES: Final[Mapping[str, str]] = {
    "UV_PYTHON_INSTALL_MIRROR": "python-install-mirror",
    "UV_PYPY_INSTALL_MIRROR": "pypy-install-mirror",
    "UV_PYTHON_DOWNLOADS_JSON_URL": "python-downloads-json-url",
}
_KEPT: Final = re.compile(r"UV_(HTTP_|SYSTEM_CERTS$|NATIVE_TLS$|INSECURE_HOST$|REQUEST_TIMEOUT$|CONCURRENT_)")
_HINT: Final = f"see {', '.join(UV_PYTHON_VARIABLES)}, and uv's own settings"
_PYPY: Final = re.compile(r"pypy3\.\d+-v(?P<release>\d+(\.\d+)+)-")
_ARCHIVE: Final = re.compile(r"[\w.+-]+")
_KEY: Final = re.compile(r"(cpython|pypy)-[0-9][\w.]*(\+freethreaded)?-linux-\w+-\w+")


class _Download(Document):
    """An entry of `uv python list --output-format json`."""

    key: str
    version: str
    url: str | None = None
    os: str
    arch: str
    libc: str
    implementation: str
    variant: str = "default"


def resolve_pythons(matrix: Matrix, cache: Path) -> Matrix:
    """The same cells, each with the exact Python that uv installs for it, if its base gets one from uv.

    `cache` is where another uv than builder's own is installed, if the matrix bakes one. Raises MatrixError if uv has
    none that a cell asks for, and CommandError if the list of Pythons cannot be read.
    """
    asked = sorted({cell.python for cell in matrix.cells if cell.python_source == "uv"})
    if not asked:
        return matrix
    program = uv_program(str(matrix.uv.tag), cache)
    return choose_pythons(matrix, {python: _listing(python, program) for python in asked})


def choose_pythons(matrix: Matrix, listings: Mapping[str, str]) -> Matrix:
    """See `resolve_pythons`; the listings are what `uv python list` says, as JSON, for each Python of the matrix."""
    try:
        lists = {python: parse_value(tuple[_Download, ...], text) for python, text in listings.items()}
    except MalformedError as error:
        raise CommandError(f"`uv python list` prints something else than Pythons: {error}", hint=_HINT) from error
    of_cells = {cell: _fitting(lists[cell.python], cell) for cell in matrix.cells if cell.python_source == "uv"}
    faults = [
        f"{matrix.source}: uv {matrix.uv.tag} has no Python {cell.python} for {cell.platform} with {_libc(cell)}, "
        f"which the cell {cell.name} asks for"
        for cell, downloads in of_cells.items()
        if not downloads
    ]
    if faults:
        hint = "`uv python list --only-downloads --all-versions --all-platforms` lists what there is; exclude the cell"
        raise MatrixError("\n".join(faults), hint=hint)
    resolved = {cell: replace(cell, uv_python=_newest(downloads)) for cell, downloads in of_cells.items()}
    return matrix.with_cells(resolved.get(cell, cell) for cell in matrix.cells)


def run_for_python(program: Path, *arguments: str) -> Completed:
    """Run `uv python` outside of any project, with the user's settings of uv and nothing else of the environment's."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("UV_") or name in UV_PYTHON_VARIABLES or _KEPT.match(name)
    }
    # Whoever may write to a layer's files is decided when it is packed; uv itself would heed this user's umask.
    argv = ("sh", "-c", 'umask 022; exec "$@"', "sh", str(program), "python", *arguments)
    return run(
        argv, env={**kept, "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "manual"}, cwd=Path(tempfile.gettempdir())
    )


def _listing(python: str, program: Path) -> str:
    options = ("--only-downloads", "--all-platforms", "--all-arches", "--output-format", "json")
    said = run_for_python(program, "list", python, *options)
    if said.returncode:
        what = f"uv cannot list the Pythons that it installs: {redact(said.stderr).strip()}"
        raise CommandError(what, hint=_HINT)
    return said.stdout.strip() or "[]"


def _libc(cell: Cell) -> str:
    return "musl" if cell.family == "alpine" else "glibc"


def _fitting(downloads: tuple[_Download, ...], cell: Cell) -> list[_Download]:
    """Those of the downloads that the cell can run and that are what it asks for."""
    wanted = cell.interpreter
    target = ("linux", cell.platform.machine, "musl" if cell.family == "alpine" else "gnu")
    return [
        each
        for each in downloads
        if (each.os, each.arch, each.libc) == target
        and (each.implementation, each.variant) == (wanted.implementation, wanted.variant)
        and _release(each.version)[: len(wanted.release)] == wanted.release
    ]


def _newest(downloads: list[_Download]) -> UvPython:
    newest = max(downloads, key=lambda each: Version(each.version))
    try:
        archive = unquote(urlsplit(newest.url or "").path).rpartition("/")[2]
    except ValueError:
        archive = ""
    if not _ARCHIVE.fullmatch(archive) or not _KEY.fullmatch(newest.key):
        raise UsageError(f"uv names a Python {newest.key} in a file {archive!r}, which is none", hint=_HINT)
    if newest.implementation != "pypy":
        return UvPython(key=newest.key, version=newest.version, release=newest.version, archive=archive)
    found = _PYPY.match(archive)
    if not found:  # wheels for PyPy are for one version of it
        raise UsageError(f"the name {archive} does not tell PyPy's version", hint="name it as PyPy's own archives")
    return UvPython(key=newest.key, version=newest.version, release=found["release"], archive=archive)


def _release(version: str) -> tuple[int, ...]:
    try:
        return Version(version).release
    except InvalidVersion:
        return ()
