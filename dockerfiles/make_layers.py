"""Make layers of an image: runs in the base image, as root, in a step of a build or in a chroot.

`python3 make_layers.py FOLDER OUTPUT` reads FOLDER/layers.json, runs its steps one after another, and writes each layer
to OUTPUT/<key>.tar. Every step finds an empty /opt/uv, so that what it makes depends on nothing but the step.

A layer is either all that its step changed, or the files of some packages: those that their RECORDs list, their
bytecode, and their entries in uv's cache. Where two packages write one file, or a file has no owner, packages are
installed one by one, so that each layer has the files that its packages brought along.
"""

from __future__ import annotations

import csv
import errno
import glob
import importlib.util
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from typing import Any, Dict, Iterable, Iterator, List, Optional, Set, Tuple

UV = "/opt/uv"
VENV = UV + "/venv"
CACHE = UV + "/cache"
# What uv writes into a cache and an environment whatever is installed: it belongs to the empty environment.
MARKERS = {".lock", ".gitignore", ".git", "CACHEDIR.TAG"}
# Not part of an image, or changed by whatever runs the steps.
OUTSIDE = {"/proc", "/sys", "/dev", "/run", "/tmp", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname"}
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
PIPS_BUNDLE = "pip/_vendor/certifi/cacert.pem"
WHITEOUT = ".wh."  # a file that a layer removes (layer.md of the OCI image specification)

State = Dict[str, Tuple[int, ...]]


class Step:
    """A step of layers.json: its scripts, where it changes files, and the layers that it makes.

    `layers` maps keys to the names of packages, which are empty if the layer is all that the step changed. A step
    without layers only prepares for those after it.
    """

    def __init__(self, folder: str, table: Dict[str, Any]) -> None:
        self.folder = folder
        self.title: str = table["title"]
        self.setup: str = table["setup"]
        self.script: str = table["script"]
        self.scope: str = table["scope"]
        self.requirements: str = table["requirements"]
        self.layers: Dict[str, List[str]] = table["layers"]

    def run(self, script: str, requirements: str) -> None:
        """Run one of its scripts; end the program if it fails."""
        path = os.path.join(self.folder, requirements)
        ended = subprocess.call(["sh", os.path.join(self.folder, script)], env=dict(os.environ, REQUIREMENTS=path))
        if ended:
            print("builder: failed: %s: exit code %d" % (self.title, ended), flush=True)
            sys.exit(ended if ended > 0 else 1)

    def changes(self, requirements: str) -> Tuple[State, State]:
        """Run the step from an empty /opt/uv; return the state before its script and the state after it."""
        shutil.rmtree(UV, ignore_errors=True)
        if self.setup:
            self.run(self.setup, requirements)
        before = state(self.scope)
        self.run(self.script, requirements)
        return before, state(self.scope)


def main(folder: str, output: str) -> None:
    """Make the layers that FOLDER/layers.json asks for."""
    os.makedirs(output, exist_ok=True)
    with open(os.path.join(folder, "layers.json"), encoding="utf-8") as file:
        table = json.load(file)
    OUTSIDE.update(mount_points())
    OUTSIDE.add(output)
    write_public_certificates(os.path.join(output, os.path.basename(CA_BUNDLE)))
    for name in table["below"]:
        unpack(os.path.join(folder, name))
    for entry in table["steps"]:
        step = Step(folder, entry)
        print("builder: " + step.title, flush=True)
        if not step.layers:
            step.run(step.script, step.requirements)
        elif any(step.layers.values()):
            make_packages(step, output)
        else:
            make_all(step, output)


def write_public_certificates(path: str) -> None:
    """Write the certificates that are public because the base has them: its own, and those of the pip in it."""
    with open(path, "wb") as bundle:
        if os.path.exists(CA_BUNDLE):
            with open(CA_BUNDLE, "rb") as file:
                bundle.write(file.read() + b"\n")
        found = importlib.util.find_spec("ensurepip")
        pips = os.path.join(os.path.dirname(found.origin), "_bundled", "pip-*.whl") if found and found.origin else ""
        for wheel in glob.glob(pips):
            with zipfile.ZipFile(wheel) as archive:
                if PIPS_BUNDLE in archive.namelist():
                    bundle.write(archive.read(PIPS_BUNDLE))


def make_all(step: Step, output: str) -> None:
    """Make the one layer of a step, with all that it changed."""
    (key,) = step.layers
    before, after = step.changes(step.requirements)
    write(os.path.join(output, key + ".tar"), changed(before, after), removed(before, after), step.scope)


def make_packages(step: Step, output: str) -> None:
    """Make a step's layers, each with the files of some packages."""
    before, after = step.changes(step.requirements)
    names = {name for packages in step.layers.values() for name in packages}
    files = [path for path in changed(before, after) if not is_marker(path)]
    owners = find_owners(names, files)
    lost = [path for path in files if path not in owners and not stat.S_ISDIR(after[path][0])]
    alone = names if lost else {name for shared in owners.values() if len(shared) > 1 for name in shared}
    for key, packages in sorted(step.layers.items()):
        together = set(packages) - alone
        write_part(step, output, key, [path for path in files if owners.get(path, set()) & together])
    for key, packages in sorted(step.layers.items()):
        for name in sorted(set(packages) & alone):
            before, after = step.changes(os.path.join(os.path.dirname(step.requirements), "pylock.%s.toml" % name))
            write_part(step, output, key, [path for path in changed(before, after) if not is_marker(path)])


def write_part(step: Step, output: str, key: str, paths: List[str]) -> None:
    """Append files to a layer; one that is in it already stays, and goes with the package that comes first by name."""
    path = os.path.join(output, key + ".tar")
    write(path, paths, [], step.scope)


def find_owners(names: Set[str], files: Iterable[str]) -> Dict[str, Set[str]]:
    """Return the packages that each file belongs to; files without an owner are missing."""
    owners: Dict[str, Set[str]] = {}
    archives: Dict[str, str] = {}
    listed = set(files)
    for path in listed:
        # wheels-v7/pypi/<package>/<version and tags>, or below index/<hash> and url/<hash>: a link to the archive
        folder = os.path.basename(os.path.dirname(path))
        if path.startswith(CACHE + "/wheels-v") and folder in names:
            owners.setdefault(path, set()).add(folder)
            if os.path.islink(path):
                archives[os.path.realpath(path)] = folder
    for name, path in recorded_files(names):
        owners.setdefault(path, set()).add(name)
    for archive, name in archives.items():
        for path in walk(archive):
            owners.setdefault(path, set()).add(name)
            for installed in empty_folders(archive, path):
                owners.setdefault(installed, set()).add(name)
    return owners


def empty_folders(archive: str, path: str) -> Iterator[str]:
    """Yield where an empty folder of an archive is installed: RECORDs list only files."""
    if os.path.isdir(path) and not os.path.islink(path) and not os.listdir(path):
        for site in site_packages():
            yield os.path.join(site, os.path.relpath(path, archive))


def recorded_files(names: Set[str]) -> Iterator[Tuple[str, str]]:
    """Yield the packages' names with each file that their RECORDs list, and with its bytecode."""
    for site in site_packages():
        for folder in os.listdir(site):
            name = re.sub(r"[-_.]+", "-", folder.split("-")[0]).lower()
            record = os.path.join(site, folder, "RECORD")
            if not folder.endswith(".dist-info") or name not in names or not os.path.exists(record):
                continue
            with open(record, encoding="utf-8", newline="") as file:
                for row in csv.reader(file):
                    path = os.path.normpath(os.path.join(site, row[0]))
                    yield name, path
                    if path.endswith(".py"):
                        yield name, importlib.util.cache_from_source(path)


def site_packages() -> List[str]:
    """The folders of the environment that packages are installed to."""
    lib = VENV + "/lib"
    return [os.path.join(lib, name, "site-packages") for name in os.listdir(lib)]


def is_marker(path: str) -> bool:
    """Whether uv writes this file for every cache and environment."""
    folder, name = os.path.split(path)
    is_own = folder in (VENV, CACHE) or os.path.dirname(folder) == CACHE
    return (name in MARKERS and is_own) or path.startswith(CACHE + "/interpreter-v")


def state(scope: str) -> State:
    """What tells that a file below the scope has changed; of folders, which change with their files, only modes.

    Not the time of the last change of its inode: an engine that links a file of a layer for another build moves it.
    """
    found = {}
    for path in walk(scope):
        status = os.lstat(path)
        mode = (status.st_mode, status.st_uid, status.st_gid)
        content = (status.st_size, status.st_mtime_ns, status.st_ino)
        found[path] = mode if stat.S_ISDIR(status.st_mode) else mode + content
    return found


def walk(top: str) -> Iterator[str]:
    """Yield a folder and all that is in it, without what is no part of an image."""
    todo = [top] if os.path.isdir(top) else []
    while todo:
        folder = todo.pop()
        if folder != "/":
            yield folder
        for entry in os.scandir(folder):
            if entry.path in OUTSIDE:
                continue
            if entry.is_dir(follow_symlinks=False):
                todo.append(entry.path)
            else:
                yield entry.path


def mount_points() -> Set[str]:
    """The paths below / that something is mounted on; none where /proc is not there."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            return {line.split()[4] for line in file} - {"/"}
    except OSError:
        return set()


def changed(before: State, after: State) -> List[str]:
    """The paths that are new or different, parents first."""
    return sorted(path for path, signature in after.items() if before.get(path) != signature)


def removed(before: State, after: State) -> List[str]:
    """The paths that are gone; of a folder that is gone only the folder."""
    gone = {path for path in before if path not in after}
    return sorted(path for path in gone if os.path.dirname(path) not in gone)


def write(tar_path: str, paths: Iterable[str], gone: Iterable[str], scope: str) -> None:
    """Write files to a tar, or append them to it, with the folders below the scope that they are in."""
    mode = "a" if os.path.exists(tar_path) else "w"
    with tarfile.open(tar_path, mode, format=tarfile.PAX_FORMAT) as tar:
        there = {"/" + name for name in tar.getnames()} if mode == "a" else set()
        entries = {path: entry_of(tar, path) for path in with_parents(paths, scope) if path not in there}
        for path in gone:
            folder, name = os.path.split(path)
            whiteout = os.path.join(folder, WHITEOUT + name)
            entries[whiteout] = tarfile.TarInfo(whiteout.lstrip("/"))
        for _, entry in sorted(entries.items()):
            if entry is not None and entry.isreg() and entry.size:
                with open("/" + entry.name, "rb") as content:
                    tar.addfile(entry, content)
            elif entry is not None:
                tar.addfile(entry)


def with_parents(paths: Iterable[str], scope: str) -> List[str]:
    """The paths and the folders that they are in, from the scope down; the folders above it are the base's."""
    found = set(paths)
    for path in list(found):
        parent = os.path.dirname(path)
        while parent != "/" and parent not in found and (parent + "/").startswith(scope.rstrip("/") + "/"):
            found.add(parent)
            parent = os.path.dirname(parent)
    return sorted(found)


def entry_of(tar: tarfile.TarFile, path: str) -> Optional[tarfile.TarInfo]:
    """The tar entry of a file; None for a socket. Further links to a file become hard links."""
    entry = tar.gettarinfo(path, path.lstrip("/"))
    if entry is None:  # a socket
        return None
    entry.uname = entry.gname = ""
    entry.mtime = int(entry.mtime)  # as bytecode notes it
    for name in attributes_of(path):
        if name.startswith(("user.", "security.capability")):
            value = os.getxattr(path, name, follow_symlinks=False)
            entry.pax_headers["SCHILY.xattr." + name] = value.decode("utf-8", "surrogateescape")
    return entry


def attributes_of(path: str) -> List[str]:
    """The names of a file's extended attributes; none where the file system has none, or Python cannot read them."""
    if not hasattr(os, "listxattr"):
        return []
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return []


def unpack(tar_path: str) -> None:
    """Unpack a layer over the root folder."""
    with tarfile.open(tar_path) as tar:
        members = tar.getmembers()
        for member in members:
            folder, name = os.path.split("/" + member.name)
            if name.startswith(WHITEOUT):
                delete(os.path.join(folder, name[len(WHITEOUT) :]))
        tar.extraction_filter = lambda member, _: member  # type: ignore[attr-defined]  # the tar was made here
        tar.extractall("/", [each for each in members if not os.path.basename(each.name).startswith(WHITEOUT)])


def delete(path: str) -> None:
    """Delete a file, a link or a folder."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.remove(path)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
