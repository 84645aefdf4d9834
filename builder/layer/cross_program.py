"""Runs make_layers.py with a folder in the place of / and another machine's Python: nothing of the image is executed.

`python3 cross_program.py SETTINGS`, with the CPython whose bytecode the image accepts. Like make_layers.py it needs
nothing but that. The steps' scripts name paths in the folder; what is written there is changed to be the image's:
scripts, what RECORDs say of them, and the environment's own files.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.util
import json
import os
import shutil
import stat
import sys
import tarfile
from typing import Any

_UV = "/opt/uv"
_CHUNK = 1 << 20


def _load(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("make_layers", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Image:
    """The folder, and what its Python is in the image: `python`, its path there, and `version`."""

    def __init__(self, root: str, python: str, version: str) -> None:
        self.root = root
        self.python = python
        self.version = version
        self.bin = root + _UV + "/venv/bin"

    def programs(self) -> set[str]:
        """The names of what is in the environment's `bin`."""
        return set(os.listdir(self.bin)) if os.path.isdir(self.bin) else set()

    def finish(self, before: set[str]) -> None:
        """Make the image's of what a step has written; `before` are the programs that its setup left."""
        cache = self.root + _UV + "/cache"
        for name in os.listdir(cache) if os.path.isdir(cache) else ():
            if name.startswith("interpreter-v"):  # of the Python that runs here
                shutil.rmtree(os.path.join(cache, name))
        changed = {path for name in self.programs() - before if self._move(path := os.path.join(self.bin, name))}
        if changed:
            for folder, _, names in os.walk(self.root + _UV + "/venv/lib"):
                if folder.endswith(".dist-info") and "RECORD" in names:
                    _correct(os.path.join(folder, "RECORD"), os.path.dirname(folder), changed)
        if not before and os.path.exists(os.path.join(self.bin, "python")):
            self._finish_environment()

    def _move(self, path: str) -> bool:
        """Remove the folder's path from a script; whether it was there."""
        if not os.path.isfile(path) or os.path.islink(path):
            return False
        with open(path, "rb") as file:
            content = file.read()
        moved = content.replace(os.fsencode(self.root), b"")
        if moved != content:
            _replace(path, moved)
        return moved != content

    def _finish_environment(self) -> None:
        path = self.root + _UV + "/venv/pyvenv.cfg"
        values = {"home": os.path.dirname(self.python), "version_info": self.version}
        with open(path, encoding="utf-8") as file:
            pairs = [line.rstrip("\n").partition(" = ") for line in file]
        lines = [f"{name}{equals}{values.get(name, value)}\n" for name, equals, value in pairs]
        _replace(path, "".join(lines).encode())
        python = os.path.join(self.bin, "python")
        os.remove(python)
        os.symlink(self.python, python)


def _replace(path: str, content: bytes) -> None:
    fresh = path + ".new"
    with open(fresh, "wb") as file:
        file.write(content)
    os.chmod(fresh, stat.S_IMODE(os.stat(path).st_mode))
    os.replace(fresh, path)


def _correct(record: str, site: str, changed: set[str]) -> None:
    """Write hashes and sizes of changed files to a RECORD (PyPA, "Recording installed projects")."""
    lines = []
    with open(record, encoding="utf-8", newline="") as file:
        content = file.read()
    for line in content.splitlines(keepends=True):
        (row,) = csv.reader([line])
        path = os.path.normpath(os.path.join(site, row[0]))
        if path in changed:
            with open(path, "rb") as file_:
                data = file_.read()
            hashed = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            end = line[len(line.rstrip("\r\n")) :]
            line = f"{line.rstrip().rsplit(',', 2)[0]},sha256={hashed},{len(data)}{end}"
        lines.append(line)
    if "".join(lines) != content:
        _replace(record, "".join(lines).encode())


def _publish(path: str, target: str, root: str) -> None:
    """Write a layer again, with the paths and the owner that its files have in the image."""
    prefix = root.lstrip("/")
    with tarfile.open(path) as source, tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        for entry in source:
            if entry.name == prefix:
                continue
            entry.name = entry.name[len(prefix) :].lstrip("/")
            if entry.islnk():
                entry.linkname = entry.linkname[len(prefix) :].lstrip("/")
            entry.pax_headers = {name: each for name, each in entry.pax_headers.items() if name.startswith("SCHILY.")}
            entry.uid = entry.gid = 0
            if entry.isreg():
                _check(source.extractfile(entry), root, entry.name)
                tar.addfile(entry, source.extractfile(entry))
            else:
                if entry.issym() and entry.linkname.startswith(root):
                    sys.exit(f"builder: failed: /{entry.name} would name a folder of this machine")
                tar.addfile(entry)


def _check(content: Any, root: str, name: str) -> None:
    """End the program if a file has the folder's path in it."""
    mark, tail = os.fsencode(root), b""
    while chunk := content.read(_CHUNK):
        if mark in tail + chunk:
            sys.exit(f"builder: failed: /{name} would name a folder of this machine")
        tail = chunk[-len(mark) :]


def _main(settings: dict[str, str]) -> None:
    root, folder = settings["root"], settings["folder"]
    program = _load(os.path.join(folder, "make_layers.py"))
    program.UV, program.VENV, program.CACHE = root + _UV, root + _UV + "/venv", root + _UV + "/cache"
    program.CA_BUNDLE = root + program.CA_BUNDLE
    program.OUTSIDE = {root + path for path in program.OUTSIDE}
    image = _Image(root, settings["python"], settings["version"])
    run = program.Step.run

    def run_and_finish(step: Any, script: str, requirements: str) -> None:
        before = image.programs()
        run(step, script, requirements)
        if script == step.script:
            image.finish(before)

    program.Step.run = run_and_finish
    made = os.path.join(root, "layers")
    program.main(folder, made)
    for name in os.listdir(made):
        target = os.path.join(settings["output"], name)
        if name.endswith(".tar"):
            _publish(os.path.join(made, name), target, root)
        else:
            shutil.copy(os.path.join(made, name), target)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as given:
        _main(json.load(given))
