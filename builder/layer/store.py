"""The layers on this machine: blobs by digest, records of layers by key, and the order in which images had them.

Deleting the folder costs only time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Final

from pydantic import Field

from builder.contract import LAYER_DIFF_ID, LAYER_KEY, LAYER_TREES
from builder.oci.manifest import DigestText, digest_of
from builder.oci.reference import Digest, is_digest
from builder.parse import Document, MalformedError, parse_document
from builder.whole_file import write_whole

_DAYS: Final = 30  # that a blob stays after its last use
_HASH: Final = re.compile("[0-9a-f]{64}")
_OURS: Final = re.compile(r"\.new-|\.?[0-9a-f]{64}")
_DIGITS: Final = 11  # of a time in seconds since 1970, or of a size
_CHUNK: Final = 1 << 20


class StoredLayer(Document):
    """A layer that was made: its key, the digest and size in bytes of its blob, the digest of its plain tar.

    `trees` maps the wheels in it (`six-1.17.0`) to the digests of their files: see `builder.tree`.
    """

    key: str
    digest: DigestText
    size: int
    media_type: str
    diff_id: DigestText
    trees: Mapping[str, DigestText] = Field(default_factory=dict)

    @property
    def descriptor(self) -> dict[str, object]:
        """Its entry in a manifest, with annotations by which it is found again."""
        return {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
            "annotations": {
                LAYER_KEY: self.key,
                LAYER_DIFF_ID: self.diff_id,
                **({LAYER_TREES: json.dumps(self.trees, separators=(",", ":"))} if self.trees else {}),
            },
        }


@dataclass(frozen=True, kw_only=True)
class LayerStore:
    """A folder of blobs, `blobs/<hex>`, and of records, `keys/<key>.json`. Processes can share it."""

    folder: Path

    def path(self, digest: Digest) -> Path:
        """Where the blob is, or will be."""
        return self.folder / "blobs" / digest.hex

    def find(self, key: str, branch: str) -> StoredLayer | None:
        """The layer with this key that the branch may use; None if it is missing, or its blob is not what was stored.

        What was made for a branch is found by that branch alone, what was made for none by all.
        """
        for path in dict.fromkeys([self._record(key, branch), self._record(key, "")]):
            with contextlib.suppress(OSError, MalformedError):
                layer = parse_document(StoredLayer, _read_used(path))
                if layer.key == key and self.has(Digest.from_str(layer.digest)):
                    return layer
        return None

    def has(self, digest: Digest) -> bool:
        """Whether the blob is here, with the right bytes; one with others is removed. Counts as a use of it."""
        path = self.path(digest)
        try:
            if digest_of_file(path) != digest:
                path.unlink()
                return False
            os.utime(path)
        except OSError:
            return False
        return True

    def read(self, digest: Digest) -> bytes | None:
        """The content of a small blob, such as a config; None if it is not here."""
        return self.path(digest).read_bytes() if self.has(digest) else None

    def write(self, content: bytes) -> bytes:
        """Store a small blob, and return it. A disk that is full only costs time later."""
        with contextlib.suppress(OSError), self.new_blob() as file:
            file.write(content)
            file.flush()
            self.keep(Path(file.name), digest_of(content))
        return content

    @contextlib.contextmanager
    def new_blob(self) -> Iterator[IO[bytes]]:
        """A new file for a blob, which is removed unless `keep` gives it a name."""
        folder = self.folder / "blobs"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".new-", delete=False) as file:
            try:
                yield file
            finally:
                Path(file.name).unlink(missing_ok=True)

    def keep(self, path: Path, digest: Digest) -> None:
        """Give a complete file its place among the blobs."""
        path.replace(self.path(digest))

    def add(self, layer: StoredLayer, branch: str) -> None:
        """Record a layer whose blob is stored."""
        write_whole(self._record(layer.key, branch), layer.model_dump_json())

    def first_time(self, name: str) -> datetime:
        """When this name was asked for first, to the second, in UTC: now, if it is new."""
        now = datetime.now(timezone.utc).replace(microsecond=0)
        noted = self._number("times", name)
        if noted is None:
            self._add_number("times", name, int(now.timestamp()))
        return now if noted is None else datetime.fromtimestamp(noted, timezone.utc)

    def order(self, names: Iterable[str]) -> tuple[str, ...]:
        """The layers' keys in the order that was noted under the first of these names which has one; else nothing."""
        for name in names:
            with contextlib.suppress(OSError, ValueError):
                return tuple(_read_used(self._order(name)).decode("ascii").split())
        return ()

    def add_order(self, name: str, keys: Iterable[str]) -> None:
        """Note the order of an image's layers; a disk that is full only costs time later."""
        with contextlib.suppress(OSError):
            write_whole(self._order(name), "\n".join(keys))

    def add_image(self, *digests: Digest) -> None:
        """Note that an image was assembled here: the digests of its manifest and config."""
        for digest in digests:
            self._add_number("images", digest.hex, 1)

    def has_image(self, digest: Digest) -> bool:
        """Whether the image with this digest of its manifest or config was assembled here."""
        return self._number("images", digest.hex) is not None

    def prove(self, digests: Iterable[Digest]) -> None:
        """Note layers of an image that passed every check."""
        for digest in digests:
            self._add_number("proven", digest.hex, 1)

    def is_proven(self, digest: Digest) -> bool:
        """Whether an image with this layer passed every check on this machine."""
        return self._number("proven", digest.hex) is not None

    def size_of(self, artifact: str) -> int | None:
        """The size in bytes of the artifact with this SHA-256; None if it was not noted."""
        return self._number("sizes", artifact)

    def add_size(self, artifact: str, size: int) -> None:
        """Note the size of an artifact."""
        if artifact:
            self._add_number("sizes", artifact, size)

    def tree_of(self, artifact: str) -> str | None:
        """The digest of the files of the wheel with this SHA-256; None if it was not noted."""
        try:
            text = _read_used(self._note("trees", artifact)).decode("ascii")
        except (OSError, ValueError):
            return None
        return text if is_digest(text) else None

    def add_tree(self, artifact: str, tree: str) -> None:
        """Note the digest of a wheel's files."""
        with contextlib.suppress(OSError, ValueError):
            write_whole(self._note("trees", artifact), tree)

    def _number(self, kind: str, name: str) -> int | None:
        try:
            text = _read_used(self._note(kind, name)).decode("ascii")
        except (OSError, ValueError):
            return None
        return int(text) if text.isdecimal() and len(text) <= _DIGITS else None

    def _add_number(self, kind: str, name: str, number: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            write_whole(self._note(kind, name), str(number))

    def _note(self, kind: str, name: str) -> Path:
        """Where something is noted under a hash; raise ValueError for what is none, and could lead elsewhere."""
        if not _HASH.fullmatch(name):
            raise ValueError(f"{name!r} is not a hash")
        return self.folder / kind / name

    def sweep(self) -> None:
        """Remove what was not used for a month, and what killed runs left."""
        oldest = time.time() - _DAYS * 86400
        for path in self.folder.glob("*/*"):
            if not _OURS.match(path.name):  # the user named a folder that was there before
                continue
            with contextlib.suppress(OSError):
                age = path.stat().st_mtime
                if age < oldest or (path.name.startswith(".") and age < time.time() - 86400):
                    path.unlink()

    def _order(self, name: str) -> Path:
        return self.folder / "orders" / hashlib.sha256(name.encode()).hexdigest()

    def _record(self, key: str, branch: str) -> Path:
        return self.folder / "keys" / (f"{key}-{branch}.json" if branch else f"{key}.json")


def _read_used(path: Path) -> bytes:
    """Read a file, and note that it was used."""
    content = path.read_bytes()
    os.utime(path)
    return content


def digest_of_file(path: Path) -> Digest:
    """Return the SHA-256 digest of a file's content; raise OSError if it cannot be read."""
    with path.open("rb") as file:
        return Digest(algorithm="sha256", hex=hex_of(file, "sha256"))


def hex_of(file: IO[bytes], algorithm: str) -> str:
    """Return the hash of what is left to read, as hexadecimal digits."""
    hashed = hashlib.new(algorithm)
    while chunk := file.read(_CHUNK):
        hashed.update(chunk)
    return hashed.hexdigest()
