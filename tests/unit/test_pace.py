"""How long cells took, and how much of a step is done."""

from __future__ import annotations

from pathlib import Path

from builder.pace import keep_pace, read_pace
from builder.tally import Tally


def test_pace_is_kept(tmp_path: Path) -> None:
    """Broken: the estimate is of another cell, or forgets all others, or a damaged note ends a build."""
    path = tmp_path / "cache" / "pace.json"
    assert read_pace(path) == {}
    keep_pace(path, {"ci:a": 65.04, "ci:b": 3.0})
    keep_pace(path, {"ci:a": 7.0})
    assert read_pace(path) == {"ci:b": 3.0, "ci:a": 7.0}
    for text in ("[]", "{", '{"a": "b"}'):
        path.write_text(text, encoding="utf-8")
        assert read_pace(path) == {}
    (tmp_path / "file").write_text("", encoding="utf-8")
    keep_pace(tmp_path / "file" / "pace.json", {"ci:a": 1.0})


def test_tally() -> None:
    """Broken: the counts of a step are wrong, so that it seems to be done, or never to end."""
    tally = Tally(title="compress", parts=2, size=3_000_000)
    assert [tally.add(1_000_000), tally.add(2_000_000)] == ["compress 1/2, 1/3 MB", "compress 2/2, 3/3 MB"]
