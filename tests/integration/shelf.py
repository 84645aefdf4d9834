"""Packages that tests make themselves, on a web server that builds can reach: one port of the engine's bridge."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import tomli_w

from tests.integration.conftest import docker
from tests.integration.nightly import SLIM, Nightly

Files = Mapping[str, bytes]

# A build backend in the sdist itself, so that no index is asked for one.
_BACKEND = '''\
"""Builds the wheel of this package."""
import base64, hashlib, os, subprocess, sysconfig, zipfile

def compiled():
    """The C sources as an extension module, by its path in the wheel; nothing without sources."""
    if not os.path.exists("native.c"):
        return {{}}
    path = "{name}_native" + sysconfig.get_config_var("EXT_SUFFIX")
    include = "-I" + sysconfig.get_path("include")
    subprocess.check_call(["gcc", "-shared", "-fPIC", include, "native.c", "-o", path, *{flags!r}])
    with open(path, "rb") as file:
        return {{path: file.read()}}

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    info = "{name}-{version}.dist-info"
    files = {{
        "{name}.py": b'"""Built from source."""\\n',
        info + "/METADATA": b"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n",
        info + "/WHEEL": b"Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        **compiled(),
    }}
    record = ""
    filename = "{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel_directory + "/" + filename, "w") as wheel:
        for path, content in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record += "%s,sha256=%s,%d\\n" % (path, digest, len(content))
            wheel.writestr(zipfile.ZipInfo(path), content)
        wheel.writestr(zipfile.ZipInfo(info + "/RECORD"), record + info + "/RECORD,,\\n")
    return filename
'''


# A C extension module with one function, which calls a function of a library.
_NATIVE = """\
#include <Python.h>
{header}
static PyObject *answer(PyObject *self, PyObject *none) {{ return PyLong_FromLong({call}); }}
static PyMethodDef methods[] = {{{{"answer", answer, METH_NOARGS, ""}}, {{NULL, NULL, 0, NULL}}}};
static struct PyModuleDef module = {{PyModuleDef_HEAD_INIT, "{name}_native", "", -1, methods}};
PyMODINIT_FUNC PyInit_{name}_native(void) {{ return PyModule_Create(&module); }}
"""


@dataclass(frozen=True, kw_only=True)
class Native:
    """What an extension module is made of: a header, a call of a function, and the flags to link with."""

    header: str = ""
    call: str = "42"
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """A folder of packages, and the address at which both this machine and builds find it."""

    folder: Path
    url: str

    def wheel(
        self,
        name: str,
        version: str = "1.0",
        files: Files | None = None,
        *,
        scripts: Mapping[str, str] | None = None,
        folders: tuple[str, ...] = (),
        size: int = 0,
    ) -> dict[str, Any]:
        """Make a wheel and return its table of a lock; `scripts` are entry points, `size` bytes make it larger."""
        module = name.replace("-", "_")
        info = f"{module}-{version}.dist-info"
        every = dict(files or {f"{module}.py": f'"""{name} {version}."""\n'.encode()})
        if size:
            every[f"{module}_data.bin"] = hashlib.shake_128(f"{name}{version}".encode()).digest(size)
        if scripts:
            lines = "".join(f"{script} = {target}\n" for script, target in scripts.items())
            every[f"{info}/entry_points.txt"] = f"[console_scripts]\n{lines}".encode()
        every[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
        every[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        lines = "".join(f"{path},{_hash(content)},{len(content)}\n" for path, content in every.items())
        every[f"{info}/RECORD"] = f"{lines}{info}/RECORD,,\n".encode()
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for folder in folders:
                archive.writestr(zipfile.ZipInfo(f"{folder}/", (2020, 1, 1, 0, 0, 0)), b"")
            for path, content in every.items():
                archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), content)
        table = self._put(f"{module}-{version}-py3-none-any.whl", packed.getvalue())
        return {"name": name, "version": version, "wheels": [table]}

    def sdist(self, name: str, version: str = "1.0", *, native: Native | None = None) -> dict[str, Any]:
        """Make a source distribution with a build backend of its own; return its table of a lock.

        With `native`, it has an extension module, which the backend compiles with gcc.
        """
        flags = list(native.flags) if native else []
        backend = _BACKEND.format(name=name, version=version, flags=flags)
        source = _NATIVE.format(name=name, header=native.header, call=native.call) if native else ""
        system = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            for path, content in {
                "pyproject.toml": f'{system}[project]\nname = "{name}"\nversion = "{version}"\n',
                "backend.py": backend,
                "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
                **({"native.c": source} if source else {}),
            }.items():
                entry = tarfile.TarInfo(f"{name}-{version}/{path}")
                entry.size = len(content.encode())
                tar.addfile(entry, io.BytesIO(content.encode()))
        return {"name": name, "version": version, "sdist": self._put(f"{name}-{version}.tar.gz", packed.getvalue())}

    def _put(self, filename: str, content: bytes) -> dict[str, Any]:
        path = self.folder / filename
        if not path.exists():
            path.write_bytes(content)
        content = path.read_bytes()
        hashes = {"sha256": hashlib.sha256(content).hexdigest()}
        return {"name": filename, "url": f"{self.url}/{filename}", "size": len(content), "hashes": hashes}


@dataclass(kw_only=True)
class Project(Nightly):
    """A project with one cell, whose lock names packages of a shelf."""

    def packages(self, *packages: Mapping[str, Any]) -> None:
        """Write the lock."""
        ordered = sorted(packages, key=lambda package: str(package["name"]))
        table = {"lock-version": "1.0", "created-by": "tests", "packages": ordered}
        (self.folder / "pylock.toml").write_text(tomli_w.dumps(table), encoding="utf-8")

    def one_cell(self, *, extra: str = "", base: str = SLIM) -> None:
        """Write a matrix with the cell 3.13-slim."""
        self.matrix(extra=extra, base=base)
        path = self.folder / "matrix.toml"
        path.write_text(path.read_text().replace('"3.11", ', ""))


def _hash(content: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """Print nothing."""


@contextlib.contextmanager
def open_shelf(folder: Path) -> Iterator[Shelf]:
    """Serve a folder where the engine's builds can reach it."""
    address = docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")
    with ThreadingHTTPServer((address, 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield Shelf(folder=folder, url=f"http://{address}:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()
