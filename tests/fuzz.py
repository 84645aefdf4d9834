"""Damaged input for tests: valid samples in which some JSON values, or some bytes, are others."""

from __future__ import annotations

import json
from typing import Any, Final

from hypothesis import strategies as st

MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"

# What may stand in place of a part of a text. Each once caused a traceback here or elsewhere.
_TOKENS: Final = (
    "", "null", "[]", "{}", "[null]", '{"": null}', "0", "-1", "1e999", "true", '"', "'", "\\", "\n", "\r\n", "\0",
    "\x1b[2J", "²", "٣", "\ufeff", "\u202e", "é", "€", "%", "%00", "${X}", "$", "..", "../../", "/", "//", "\u2028",
    "http://[::1", "http://[", "://", ":", "@", "9" * 400, "9" * 5000, "[" * 2000, '{"a":' * 2000, "a=" * 2000,
    "a." * 2000, "- " * 500, "NaN", "sha256:", f"sha256:{'0' * 64}", "2026-13-45", "2026-01-01T00:00:00",
    "0001-01-01T00:00:00+23:59", "1979-05-27T00:00:00Z", "<<", "&a", "*a", "!!python/object:os", "!reference [a]",
    "==", ";", "#", "-r", "-e ", "(", "[[", "= ",
)  # fmt: skip
_HEADER_NAMES: Final = (
    "Content-Type", "Docker-Content-Digest", "Location", "Link", "Retry-After", "WWW-Authenticate", "Content-Length",
    "Content-Encoding", "Transfer-Encoding", "Set-Cookie",
)  # fmt: skip
_HEADER_VALUES: Final = (
    "", "²", "-1", "9" * 400, "http://[::1", "http://", "//", "?", "https://x.invalid/", "ftp://x.invalid/", "é",
    "gzip", "br", "Bearer", "Basic", 'Bearer realm=""', 'Bearer realm="http://[::1"', 'Bearer realm="/token"',
    'Bearer realm="http://localhost:5000/token"', f"sha256:{'0' * 64}", "sha256:", f"sha999:{'0' * 64}", MANIFEST_TYPE,
    INDEX_TYPE, "text/html", '<http://[::1>; rel="next"', '<>; rel="next"', "<x>; rel=next; rel=next", ";;;", "chunked",
)  # fmt: skip
_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(_TOKENS), st.text(max_size=5),
    st.just([]), st.just({}), st.just([None]), st.just({"a": {"b": [1]}}),
)  # fmt: skip

headers = st.dictionaries(st.sampled_from(_HEADER_NAMES), st.sampled_from(_HEADER_VALUES), max_size=4)
texts = st.one_of(st.text(max_size=40), st.lists(st.sampled_from(_TOKENS), max_size=4).map("".join))


@st.composite
def damaged(draw: st.DrawFn, *samples: str) -> bytes:
    """One of the samples, damaged."""
    text = draw(st.sampled_from(samples))
    if text.lstrip().startswith(("{", "[{")) and draw(st.booleans()):
        table = json.loads(text)
        for _ in range(draw(st.integers(1, 3))):
            table = _replaced(draw, table)
        return json.dumps(table).encode("utf-8", "surrogatepass")
    content = text.encode()
    for _ in range(draw(st.integers(0, 4))):
        start, length = draw(st.integers(0, len(content))), draw(st.integers(0, 12))
        token = draw(st.one_of(st.sampled_from(_TOKENS).map(str.encode), st.binary(max_size=4)))
        content = content[:start] + token + content[start + length :]
    return content


def _replaced(draw: st.DrawFn, node: Any) -> Any:
    """The value with one part of it replaced."""
    if isinstance(node, dict) and node and draw(st.integers(0, 4)):
        key = draw(st.sampled_from(sorted(node)))
        return {**node, key: _replaced(draw, node[key])}
    if isinstance(node, list) and node and draw(st.integers(0, 4)):
        place = draw(st.integers(0, len(node) - 1))
        return [*node[:place], _replaced(draw, node[place]), *node[place + 1 :]]
    return draw(_VALUES)
