"""The layer with a Python that uv installs: made by uv on this machine, for any platform, without the base image.

uv writes the folder's path into some of Python's files. It installs into a folder that ends with the path of the image,
and what comes before that is taken out again. The result is what `uv python install` leaves in the image itself.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from builder.contract import PYTHON_LINKS, UV_PYTHONS
from builder.errors import BuildError
from builder.lock.uv_python import UV_PYTHON_VARIABLES, run_for_python
from builder.matrix.interpreter import UvPython
from builder.redaction import redact


def write_python(python: UvPython, uv: Path, path: Path) -> None:
    """Write the tar of the layer with this program of uv; raise BuildError if that cannot install the Python."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="builder-python-") as folder:
        root = Path(folder).resolve()
        pythons = Path(f"{root}{UV_PYTHONS}")
        pythons.mkdir(parents=True)
        said = run_for_python(uv, "install", "--no-cache", "--no-bin", "--install-dir", str(pythons), python.key)
        home = pythons / python.key
        if said.returncode or not home.is_dir():
            reason = redact(said.stderr).strip() or f"{home.name} is not there"
            hint = f"{', '.join(UV_PYTHON_VARIABLES)} say where uv fetches Pythons; behind a proxy, HTTPS_PROXY"
            raise BuildError(f"uv cannot install {python.key}: {reason}", hint=hint)
        for each in (home, *sorted(home.rglob("*"))):
            _forget(each, root)
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
            for entry in _entries(tar, root, home, python):
                if entry.isreg():
                    with (root / entry.name).open("rb") as content:
                        tar.addfile(entry, content)
                else:
                    tar.addfile(entry)


def _forget(path: Path, root: Path) -> None:
    """Make the paths in a file, or of a link, those that they are in the image; raise BuildError if that cannot be."""
    mark = os.fsencode(root)
    if path.is_symlink():
        target = str(path.readlink())
        if target.startswith(f"{root}/"):
            path.unlink()
            path.symlink_to(target.removeprefix(str(root)))
    elif path.is_file():
        content = path.read_bytes()
        if mark in content:
            if b"\0" in content:
                raise BuildError(f"{path.name} of {UV_PYTHONS} has the path of a folder of this machine")
            path.write_bytes(content.replace(mark, b""))


def _entries(tar: tarfile.TarFile, root: Path, home: Path, python: UvPython) -> Iterator[tarfile.TarInfo]:
    """The entries of the layer: the folders that no base has, all of Python, and its names on PATH."""
    for path in (Path(UV_PYTHONS).parent, Path(UV_PYTHONS)):
        folder = tarfile.TarInfo(str(path).lstrip("/"))
        folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o755, int(home.stat().st_mtime)
        yield folder
    for path in (home, *sorted(home.rglob("*"))):
        entry = tar.gettarinfo(path, str(path.relative_to(root)))
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = int(entry.mtime)  # as bytecode notes it
        yield entry
    for name in python.links:
        link = tarfile.TarInfo(f"{PYTHON_LINKS}/{name}".lstrip("/"))
        link.type, link.linkname, link.mode = tarfile.SYMTYPE, f"{python.home}/bin/python", 0o777
        link.mtime = int(home.stat().st_mtime)
        yield link
