"""Mirrors of package indexes: other addresses to fetch files from that a lock names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from builder.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class IndexMirrors:
    """Pairs of the beginning of addresses and what takes its place, the longest first."""

    pairs: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_mapping(cls, table: Mapping[str, str]) -> IndexMirrors:
        """Parse a table such as `{"https://files.example" = "https://mirror.example/files"}`; raise UsageError."""
        pairs = [(_checked(old), _checked(new)) for old, new in table.items()]
        return cls(pairs=tuple(sorted(pairs, key=lambda pair: (-len(pair[0]), pair))))

    def locate(self, url: str) -> str:
        """Where to fetch the URL from: at a mirror, or there."""
        for old, new in self.pairs:
            if url == old or url.startswith(f"{old}/"):
                return new + url[len(old) :]
        return url

    def named(self, url: str) -> str:
        """The URL as it is without mirrors."""
        for old, new in self.pairs:
            if url == new or url.startswith(f"{new}/"):
                return old + url[len(new) :]
        return url


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_plain = parts.scheme in {"http", "https"} and parts.hostname and not (parts.query or parts.fragment)
    except ValueError:
        is_plain = False
    if not is_plain:
        raise UsageError('write addresses such as "https://mirror.example/simple"')
    if parts.username or parts.password:
        raise UsageError(f"the address at {parts.hostname} has a login; name it under credentials instead")
    return url.rstrip("/")
