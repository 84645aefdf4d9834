"""Every file of the environment and the cache is what its wheel says, nothing is missing, and nothing is too many.

The cache is compared with the digests of wheels that builder knows, or else with the cache's own RECORDs. The
environment is compared with a fresh one, which uv makes of the cache with links: what is a link there must be that
very file here, and what uv writes must be what it wrote.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import re
import stat
import sys
import tempfile
import time
import zipfile
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

from builder.contract import CACHE, PROGRAMS, SELECTION, SYSTEM_PYTHON, TOOLS, VENV
from builder.tree import tree_digest, wheel_id
from builder.verify.probes.programs import has_other_mode, program_faults
from builder.verify.probes.shell import Expected, Failed, Shell, scratch_folder, site_packages

BUCKETS = re.compile(r"(archive|builds|environments|flat-index|git|interpreter|sdists|simple|wheels)-v\d+")
MARKERS = {".lock", ".gitignore", ".git", "CACHEDIR.TAG"}
NOTE = ".dist-info/uv_cache.json"  # of what uv installs from a folder, such as the pip that Python brings along
SIGNATURES = ("RECORD", "RECORD.jws", "RECORD.p7s")
MOST = 3  # faults that are named
STARTED = time.time()


class Hashes:
    """SHA-256 hashes of files, each file read once however many links it has, and only if somebody asks."""

    def __init__(self) -> None:
        self._known: Dict[Tuple[int, int], str] = {}

    def of(self, path: str) -> str:
        """The hexadecimal hash of a file's content; raise Failed if it cannot be read."""
        try:
            status = os.stat(path)
            key = (status.st_dev, status.st_ino)
            if key not in self._known:
                hashed = hashlib.sha256()
                with open(path, "rb") as file:
                    for chunk in iter(lambda: file.read(1 << 20), b""):
                        hashed.update(chunk)
                self._known[key] = hashed.hexdigest()
            return self._known[key]
        except OSError as error:
            raise Failed("%s cannot be read: %s" % (path, error.strerror)) from None


def files(expected: Expected, job: Shell) -> str:
    """See the module."""
    if expected.unvouched:
        raise Failed("; ".join(expected.unvouched[:MOST]))
    closed = list(closed_files())
    if closed:
        raise Failed("closed to other users: %s" % ", ".join(closed[:MOST]))
    cache = Cache(expected)
    faults = list(stray_files(expected)) + list(program_faults(expected.programs))
    faults += list(cache.faults()) + list(environment_faults(expected, job, cache))
    if faults:
        more = " and %d more" % (len(faults) - MOST) if len(faults) > MOST else ""
        raise Failed("; ".join(faults[:MOST]) + more)
    count = cache.count
    told = "%d wheels" % count
    if cache.proven:
        told += ", of which %d were compared before" % cache.proven
    if cache.unknown:
        others = "as their own RECORDs say" if expected.thorough else "as they were built"
        told = "%d of %d wheels; the others are %s" % (count - cache.unknown, count, others)
    return "environment and cache have the files of %s" % told


def closed_files() -> Iterator[str]:
    """Yield what other users cannot read in the environment, the cache and the standard library, or not write to."""
    for top, needed in ((VENV, 0o007), (CACHE, 0o007), (os.path.dirname(os.__file__), 0o005)):
        for folder, folders, names in os.walk(top):
            folders[:] = [name for name in folders if not made_just_now(os.path.join(folder, name))]
            mode = os.stat(folder).st_mode
            is_sticky = needed == 0o007 and mode & stat.S_ISVTX  # only who owns a file may remove it, as in /tmp
            if mode & needed != needed or is_sticky:
                yield folder
            for path in (os.path.join(folder, name) for name in names if not name.startswith(".tmp")):
                mode = os.lstat(path).st_mode
                if not stat.S_ISLNK(mode) and not mode & 0o004:
                    yield path


def stray_files(expected: Expected) -> Iterator[str]:
    """Yield what is next to the environment and the cache, or in no folder that uv makes."""
    own = (TOOLS, PROGRAMS) if expected.tools else ()
    for name in os.listdir("/opt/uv"):
        if os.path.join("/opt/uv", name) not in (VENV, CACHE, SELECTION, *own):
            yield "/opt/uv/%s belongs to nothing" % name
    for name in os.listdir(CACHE):
        if name not in MARKERS and not BUCKETS.fullmatch(name) and not made_just_now(os.path.join(CACHE, name)):
            yield "%s/%s belongs to nothing" % (CACHE, name)


def made_just_now(path: str) -> bool:
    """Whether it is a folder in which uv works for another check, at the same time as this one."""
    try:
        return os.path.basename(path).startswith(".tmp") and os.lstat(path).st_ctime >= STARTED
    except FileNotFoundError:
        return True


class Cache:
    """The unpacked wheels in the cache: how many, how many were compared before, and with how many nothing could be."""

    def __init__(self, expected: Expected) -> None:
        self.expected = expected
        self.hashes = Hashes()
        self.owned: Dict[str, List[str]] = {}  # files by paths below site-packages
        self.count = self.proven = self.unknown = 0

    def faults(self) -> Iterator[str]:
        """Compare each wheel."""
        bundled = bundled_trees()
        for top, name in sorted(archives().items()):
            if not name:
                yield "%s is no wheel" % top
                continue
            self.count += 1
            paths = list(files_below(top))
            for path in paths:
                parts = path.split("/")
                rest = parts[2:] if parts[0].endswith(".data") else parts
                self.owned.setdefault("/".join(rest), []).append(os.path.join(top, path))
            if wheel_id(name) in self.expected.proven:
                self.proven += 1
                continue
            hashes = {path: self.hashes.of(os.path.join(top, path)) for path in paths}
            trees = self.expected.trees.get(wheel_id(name), []) or bundled.get(wheel_id(name), [])
            if not trees and self.expected.is_complete:
                yield "%s is a wheel too many" % top
            elif trees and tree_digest(hashes) not in trees:
                yield "%s has not the files of its wheel: %s" % (name, self._difference(top, name, hashes))
            elif not trees:
                self.unknown += 1
                # A wheel's own RECORD may be wrong: it does not count against what uv has just unpacked.
                yield from record_faults(top, name, hashes) if self.expected.thorough else ()

    def _difference(self, top: str, name: str, hashes: Dict[str, str]) -> str:
        """What can be told of a wheel whose files have another digest."""
        return next(record_faults(top, name, hashes), "its RECORD was changed too")


def archives() -> Dict[str, str]:
    """The folders of unpacked wheels, each with its name, such as `six-1.17.0`; empty for one that is no wheel."""
    found = {}
    for top in archive_folders():
        infos = [name for name in os.listdir(top) if name.endswith(".dist-info")] if os.path.isdir(top) else []
        found[top] = infos[0][: -len(".dist-info")] if len(infos) == 1 else ""
    return found


def archive_folders() -> Iterator[str]:
    """Yield the folders of unpacked wheels."""
    for bucket in os.listdir(CACHE):
        if bucket.startswith("archive-v"):
            for name in os.listdir(os.path.join(CACHE, bucket)):
                if name not in MARKERS:
                    yield os.path.join(CACHE, bucket, name)


def files_below(top: str) -> Iterator[str]:
    """Yield all files below a folder, links included, also those to folders, as paths relative to it."""
    for folder, folders, names in os.walk(top):
        inside = folder[len(top) + 1 :]
        for name in names + [name for name in folders if os.path.islink(os.path.join(folder, name))]:
            yield inside + "/" + name if inside else name


def record_faults(top: str, name: str, hashes: Dict[str, str]) -> Iterator[str]:
    """Yield how files differ from what their RECORD says (PyPA, "Recording installed projects")."""
    info = name + ".dist-info/"
    listed = {info + each for each in SIGNATURES}
    for path, hash_ in recorded(os.path.join(top, info, "RECORD")).items():
        listed.add(path)
        if path not in hashes:
            yield "%s/%s is missing" % (top, path)
        elif hash_.startswith("sha256=") and hash_[7:] != urlsafe(hashes[path]):
            yield "%s/%s is not the file of its wheel" % (top, path)
    for path in sorted(set(hashes) - listed):
        yield "%s/%s is not in its wheel" % (top, path)


def recorded(path: str) -> Dict[str, str]:
    """The paths in a RECORD, each with its hash; raise Failed if there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            return {row[0]: row[1] for row in csv.reader(file) if len(row) > 1}
    except (OSError, csv.Error) as error:
        raise Failed("%s cannot be read: %s" % (path, error)) from None


def urlsafe(hexadecimal: str) -> str:
    """A hash as RECORDs write it."""
    return base64.urlsafe_b64encode(bytes.fromhex(hexadecimal)).rstrip(b"=").decode()


def bundled_trees() -> Dict[str, List[str]]:
    """The wheels that Python itself brings along, by what they are: pip comes from there."""
    trees: Dict[str, List[str]] = {}
    folder = os.path.join(os.path.dirname(os.__file__), "ensurepip", "_bundled")
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        if name.endswith(".whl"):
            try:
                with zipfile.ZipFile(os.path.join(folder, name)) as wheel:
                    members = [each for each in wheel.namelist() if not each.endswith("/")]
                    hashes = {each: hashlib.sha256(wheel.read(each)).hexdigest() for each in members}
            except (OSError, zipfile.BadZipFile) as error:
                raise Failed("%s cannot be read: %s" % (name, error)) from None
            trees[wheel_id(name)] = [tree_digest(hashes)]
    return trees


def environment_faults(expected: Expected, job: Shell, cache: Cache) -> Iterator[str]:
    """Compare the environment with a fresh one."""
    with tempfile.TemporaryDirectory(dir=scratch_folder()) as scratch:
        fresh = os.path.join(scratch, os.path.basename(VENV))  # the name is in its scripts
        job.require(fresh_environment(expected, fresh), {"UV_LINK_MODE": "symlink", "UV_COMPILE_BYTECODE": "0"})
        if not os.path.isdir(fresh):
            raise Failed("uv made no environment")
        comparison = Comparison(fresh, cache)
        there, here = comparison.paths(fresh), comparison.paths(VENV)
        for path in sorted(there - here):
            yield "%s/%s is missing" % (VENV, path)
        for path in sorted(here - there):
            yield "%s/%s is in no wheel" % (VENV, path)
        for path in sorted(here & there):
            if not comparison.is_same(path):
                yield "%s/%s is not what uv installs" % (VENV, path)
            elif has_other_mode(os.path.join(VENV, path), os.path.join(fresh, path)):
                yield "%s/%s has the wrong mode" % (VENV, path)


def fresh_environment(expected: Expected, fresh: str) -> str:
    """A script that makes the environment anew, as the image's was made."""
    # With the Python that the base image has on its PATH, as when the image was made.
    own = "%s/bin:%s:" % (VENV, os.path.dirname(SYSTEM_PYTHON))
    python = "python" if expected.interpreter else "python3"  # which uv takes for one that is not free-threaded
    lines = ['PATH="${PATH#%s}" UV_PYTHON= VIRTUAL_ENV= uv venv --quiet --python %s %s' % (own, python, fresh)]
    if "pip" not in expected.packages:
        bundled = os.path.join(os.path.dirname(os.__file__), "ensurepip", "_bundled")
        lines.append("uv pip install --quiet --python %s --no-index --find-links %s pip" % (fresh, bundled))
    if expected.packages:
        install = "uv pip install --quiet --offline --no-deps --python %s --requirements %s"
        lines.append(install % (fresh, SELECTION))
    return "\n".join(lines)


class Comparison:
    """Compares files of the environment with those of a fresh one."""

    def __init__(self, fresh: str, cache: Cache) -> None:
        self.fresh = fresh
        self.cache = cache
        self.site = site_packages("")
        self.shared = self._shared_scripts()

    def paths(self, top: str) -> Set[str]:
        """The files below an environment, relative to it; of bytecode only what has no source."""
        found = set(files_below(top))
        return {path for path in found if not path.endswith(".pyc") or not self._has_source(path, found)}

    def _has_source(self, path: str, found: Set[str]) -> bool:
        """Whether it is bytecode of a source that is there too, or that comes from a wheel."""
        folder, _, name = path.rpartition("/")
        package, _, last = folder.rpartition("/")
        if path[len(self.site) + 1 :] in self.cache.owned:
            return last == "__pycache__"
        # Not that of another Python, or for `python -O`: nothing compiles it anew, and nothing compares it.
        end = ".%s.pyc" % sys.implementation.cache_tag
        is_ours = last == "__pycache__" and name.endswith(end)
        return is_ours and "%s/%s.py" % (package, name[: -len(end)]) in found

    def is_same(self, path: str) -> bool:
        """Whether a file of the environment is what uv installs."""
        ours, theirs = os.path.join(VENV, path), os.path.join(self.fresh, path)
        if os.path.islink(theirs) and os.readlink(theirs).startswith(CACHE):
            inside = path[len(self.site) + 1 :] if path.startswith(self.site) else ""
            if os.path.samefile(ours, theirs):
                return True
            # Of packages that write the same file, uv may install either one's.
            return self.cache.hashes.of(ours) in map(self.cache.hashes.of, [theirs, *self.cache.owned.get(inside, [])])
        if os.path.islink(theirs) or os.path.islink(ours):
            return os.path.islink(ours) and os.path.islink(theirs) and os.readlink(ours) == os.readlink(theirs)
        if path == "pyvenv.cfg":
            return settings(ours) - {"seed = true"} == settings(theirs) - {"seed = true"}
        if path.endswith((NOTE, ".dist-info/RECORD")):
            read = note if path.endswith(NOTE) else record_in_site
            return bool(read(ours) == read(theirs))
        return path in self.shared or content(ours) == content(theirs).replace(self.fresh.encode(), VENV.encode())

    def _shared_scripts(self) -> Set[str]:
        """Scripts that several packages have: uv may write either one's."""
        seen: Set[str] = set()
        shared: Set[str] = set()
        for name in os.listdir(os.path.join(self.fresh, self.site)):
            record = os.path.join(self.fresh, self.site, name, "RECORD")
            if os.path.exists(record):
                rows = {os.path.normpath(os.path.join(self.site, path)) for path in recorded(record)}
                shared |= seen & rows
                seen |= rows
        return shared


def settings(path: str) -> Set[str]:
    """The lines of a settings file."""
    return set(content(path).decode("utf-8", "replace").splitlines())


def content(path: str) -> bytes:
    """What is in a small file; raise Failed if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise Failed("%s cannot be read: %s" % (path, error.strerror)) from None


def record_in_site(path: str) -> Dict[str, Optional[str]]:
    """A RECORD without the hashes of files that have the environment's path in them, or a time."""
    rows = csv.reader(io.StringIO(content(path).decode("utf-8", "replace"), newline=""))
    found: Dict[str, Optional[str]] = {row[0]: row[1] for row in rows if len(row) > 1}
    return {name: None if name.startswith("..") or name.endswith(NOTE) else hash_ for name, hash_ in found.items()}


def note(path: str) -> Any:
    """What uv notes of a wheel in a folder, without when that came to the machine that installed it."""
    try:
        table = json.loads(content(path))
    except ValueError:
        return None
    return {**table, "timestamp": None} if isinstance(table, dict) else table
