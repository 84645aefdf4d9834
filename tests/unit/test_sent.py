"""How many bytes of an image a registry has, while threads send its blobs."""

from __future__ import annotations

import io
import threading

from builder.oci.transport import Upload
from builder.release.sent import Sent

MIB = 1 << 20


def test_bytes_are_counted_as_they_are_read() -> None:
    """Broken: nobody sees how much is sent before a blob is complete, or a blob that is repeated counts twice."""
    seen: list[tuple[int, int]] = []
    sent = Sent({"a": 3 * MIB, "b": MIB}, lambda done, total: seen.append((done // MIB, total // MIB)))
    upload = Upload(io.BytesIO(bytes(3 * MIB)), threading.Event(), sent.counter("a"))
    assert len(b"".join(upload)) == 3 * MIB
    assert seen == [(1, 4), (2, 4), (3, 4), (3, 4)]
    again = iter(upload.rewound())
    next(again)
    assert seen[-1] == (1, 4)
    sent.done("b")  # it was there
    sent.done("a")
    assert seen[-2:] == [(2, 4), (4, 4)]
