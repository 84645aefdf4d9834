"""Inspects the files of a layer when it is made: what holds for a layer holds for every image that it is in."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import posixpath
import re
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import IO, Final

from builder.errors import BuildError
from builder.layer.artifact import Artifacts
from builder.layer.leak import LeakSearch, entry_text
from builder.layer.plan import Layer
from builder.layer.secrets import find_mark, record_hash_of, recorded_hashes
from builder.tree import tree_digest, wheel_id

_CHUNK: Final = 1 << 20
_UV: Final = "opt/uv/"
_ARCHIVES: Final = "opt/uv/cache/archive-v0/"
_SITE_PACKAGES: Final = re.compile("opt/uv/(?:venv|tools/[^/]+)/lib/(?:python|pypy)[^/]+/site-packages")
_BYTECODE: Final = re.compile(
    r"(?P<folder>opt/uv/(?:venv|tools/[^/]+)/lib/(?P<kind>python|pypy)(?P<version>[0-9.]+)t?/.*)"
    r"/__pycache__/(?P<stem>[^/]+)\.(?P<tag>[a-z]+[0-9-]+)\.pyc"  # for another Python, or -O, it has to be the wheel's
)
_FILE_MODE: Final = 0o004  # any user reads every file below /opt/uv,
_FOLDER_MODE: Final = 0o007  # and writes to every folder


@dataclass(kw_only=True)
class _Findings:
    """What is known of a layer's files: hashes as RECORDs write them, RECORDs, secrets by hash of their file.

    A link has no hash, an empty text, unless it is one into uv's cache: that is what the wheel contains.
    """

    names: set[str] = field(default_factory=set)
    hashes: dict[str, str] = field(default_factory=dict)
    records: dict[str, bytes] = field(default_factory=dict)
    hits: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LayerInspector:
    """Raises BuildError where a layer has a secret, a file that its package's RECORD denies, or one closed to others.

    `marks` are pieces of secrets, each with a description; `artifacts` tell what is public in spite of them.
    `raise_if_stopped` is called at each file.
    """

    cell: str
    marks: Mapping[bytes, str]
    artifacts: Artifacts
    raise_if_stopped: Callable[[], None]

    def inspect(self, layer: Layer, tar: tarfile.TarFile) -> dict[str, str]:
        """Read every entry of a layer's tar; return the digests of the files of the wheels in it, by `wheel_id`."""
        found = _Findings()
        for entry in tar:
            self.raise_if_stopped()
            self._inspect_entry(layer, entry, tar, found)
        self._check_records(layer, found)
        records = {name: recorded_hashes(content) for name, content in found.records.items()} if found.hits else {}
        for hash_, hit in found.hits.items():
            # A file of a locked wheel is as public as the wheel: botocore contains a CA bundle.
            if not self.artifacts.vouch(records, hash_, layer.packages):
                raise self._fault(layer, hit, hint="the layer was discarded")
        return _trees(found)

    def _inspect_entry(self, layer: Layer, entry: tarfile.TarInfo, tar: tarfile.TarFile, found: _Findings) -> None:
        if secret := find_mark(self.marks, entry_text(entry)):
            raise self._fault(
                layer, f"{secret} is in the name, link or attributes of /{entry.name}", hint="the layer was discarded"
            )
        needed = _FOLDER_MODE if entry.isdir() else _FILE_MODE
        if entry.name.startswith(_UV) and not entry.issym() and entry.mode & needed != needed:
            raise self._fault(layer, f"/{entry.name} is closed to other users (mode {entry.mode:o})")
        found.names.add(entry.name)
        # A link into uv's cache needs no check: it is what the wheel contains, even where the wheel's RECORD is wrong.
        if entry.issym() or (entry.islnk() and not entry.linkname.startswith(_ARCHIVES)):
            found.hashes[entry.name] = ""
        elif entry.isreg() and (content := tar.extractfile(entry)):
            self._inspect_file(entry.name, content, found)

    def _inspect_file(self, name: str, content: IO[bytes], found: _Findings) -> None:
        hashed, search = hashlib.sha256(), LeakSearch(self.marks)
        is_record = name.endswith(".dist-info/RECORD")
        while chunk := content.read(_CHUNK):
            hashed.update(chunk)
            if is_record:
                found.records[name] = found.records.get(name, b"") + chunk
            search.feed(chunk)
        found.hashes[name] = record_hash_of(hashed.digest())
        if secret := search.finish():
            found.hits[found.hashes[name]] = f"{secret} is in /{name}"

    def _check_records(self, layer: Layer, found: _Findings) -> None:
        """Compare files with RECORDs (PyPA, "Recording installed projects")."""
        expected: defaultdict[str, set[str]] = defaultdict(set)  # a file may be in the RECORDs of several packages
        archived = {name.split("/", 5)[-1] for name in found.names if name.startswith(_ARCHIVES)}
        for name, content in found.records.items():
            folder = posixpath.dirname(posixpath.dirname(name))
            for path, hash_ in _rows(content):
                # Not in the cache, where scripts have no shebang yet, nor in a package that contains others, like pip.
                if _SITE_PACKAGES.fullmatch(folder):
                    expected[posixpath.normpath(posixpath.join(folder, path))].add(hash_)
        for path, hashes in expected.items():
            if _is_compiled_again(path, found.names):
                continue
            known = any(hash_.startswith("sha256=") for hash_ in hashes)
            if known and path in found.hashes and found.hashes[path] not in hashes:
                raise self._fault(layer, f"/{path} is not the file that a RECORD lists")
            # A RECORD may be wrong; a file that the wheel contains must be there.
            if path not in found.names and _SITE_PACKAGES.sub("", path).lstrip("/") in archived:
                raise self._fault(layer, f"/{path}, which a RECORD lists, is missing")

    def _fault(self, layer: Layer, what: str, *, hint: str = "make the layer again with --no-cache") -> BuildError:
        return BuildError(f"{self.cell}: layer {layer.title}: {what}", hint=hint)


def _is_compiled_again(path: str, names: Set[str]) -> bool:
    """Whether it is this Python's bytecode of a source: some wheels bring theirs, and the install compiles it anew."""
    match = _BYTECODE.fullmatch(path)
    if not match or f"{match['folder']}/{match['stem']}.py" not in names:
        return False
    version = match["version"].replace(".", "")
    return match["tag"] == (f"cpython-{version}" if match["kind"] == "python" else f"pypy{version}")


def _trees(found: _Findings) -> dict[str, str]:
    """The digests of the wheels that uv unpacked into its cache, after it had compared them with the lock's hashes."""
    archives: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for name in found.names:
        archive, _, path = name.removeprefix(_ARCHIVES).partition("/")
        if name.startswith(_ARCHIVES) and path and (hash_ := found.hashes.get(name)):
            archives[archive][path] = base64.urlsafe_b64decode(hash_.removeprefix("sha256=") + "=").hex()
    trees = {}
    for files in archives.values():
        for folder in {path.partition("/")[0] for path in files if path.partition("/")[0].endswith(".dist-info")}:
            trees[wheel_id(folder)] = tree_digest(files)
    return dict(sorted(trees.items()))


def _rows(record: bytes) -> Iterator[tuple[str, str]]:
    for row in csv.reader(io.StringIO(record.decode(errors="replace"), newline="")):
        if len(row) > 1 and row[1]:
            yield row[0], row[1]
