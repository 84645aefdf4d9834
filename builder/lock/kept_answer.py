"""Answers of package indexes that are kept in the user's cache, to ask only whether they have changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from builder.lock.page import IndexedFile
from builder.parse import MalformedError, parse_value
from builder.whole_file import write_whole

# A file with a pinned hash stays what it is, so an answer is good for a while even if the index does not say how long.
_SECONDS_WITHOUT_VALIDATOR: Final = 600


@dataclass(frozen=True, kw_only=True)
class KeptAnswer:
    """What an index answered, with the validators of that answer (RFC 9110, 8.8); either may be empty.

    Until `fresh_until`, in seconds since 1970, the index need not be asked.
    """

    etag: str
    last_modified: str
    fresh_until: float
    files: tuple[IndexedFile, ...]

    @classmethod
    def of(cls, headers: Mapping[str, str], files: tuple[IndexedFile, ...]) -> KeptAnswer:
        """The answer with these headers, received now."""
        etag, last_modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
        control = headers.get("Cache-Control", "")
        if match := re.search(r"max-age=([0-9]{1,9})(?![0-9])", control):
            seconds = int(match[1])
        else:
            seconds = 0 if etag or last_modified or control else _SECONDS_WITHOUT_VALIDATOR
        if re.search("no-store|no-cache", control):
            seconds = 0
        return cls(etag=etag, last_modified=last_modified, fresh_until=time.time() + seconds, files=files)

    @property
    def is_fresh(self) -> bool:
        """Whether the answer can be used without asking."""
        return time.time() < self.fresh_until

    @property
    def conditions(self) -> Mapping[str, str]:
        """The headers that ask for the answer only if it has changed."""
        headers = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in headers.items() if value}


@dataclass(frozen=True, kw_only=True)
class AnswerCache:
    """A folder of kept answers; without a folder, nothing is kept."""

    folder: Path | None

    def find(self, url: str, hexes: Iterable[str]) -> KeptAnswer | None:
        """The kept answer about the files with these hashes; None if there is none, or if it cannot be read."""
        path = self._path(url, hexes)
        if path is None:
            return None
        try:
            return parse_value(KeptAnswer, path.read_bytes())
        except (OSError, MalformedError):
            return None

    def keep(self, url: str, hexes: Iterable[str], answer: KeptAnswer) -> None:
        """Keep the answer if it has files and can be used again. A cache that cannot be written is none."""
        path = self._path(url, hexes)
        if path is None or not answer.files or not (answer.conditions or answer.is_fresh):
            return
        with contextlib.suppress(OSError):
            write_whole(path, json.dumps(asdict(answer)))

    def _path(self, url: str, hexes: Iterable[str]) -> Path | None:
        digest = hashlib.sha256("\n".join([url, *sorted(hexes)]).encode()).hexdigest()
        return self.folder / f"{digest}.json" if self.folder else None
