"""A fault of the engine's own build cache is told apart from one of the build.

BuildKit brings it about by chance, in builds at the same time; so a stand-in for the docker command plays it here.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from builder.engine.buildx import WITHOUT_CACHE, BuildRequest, Buildx

LOST = "failed to stat active key during commit: snapshot ha2xkfxlbzcgr does not exist: not found"
FAULTS = [
    f"failed to commit 9dzzsx to 0kxmwj during finalize: {LOST}",
    "failed to prepare extraction snapshot: parent snapshot sha256:ab does not exist: not found",
    "failed to apply diffs: failed to stat lower snapshot x: snapshot x does not exist: not found",
]


def played(folder: Path, monkeypatch: pytest.MonkeyPatch, error: str, *, heals: bool) -> list[str]:
    """Play a docker command whose builds fail with an error, without the cache too unless it `heals`; its arguments."""
    line = json.dumps({"vertexes": [{"digest": "sha256:1", "name": "RUN", "error": error}]})
    program = folder / "docker"
    healed = 'case "$*" in *--no-cache*) exit 0 ;; esac' if heals else ""
    program.write_text(f"#!/bin/sh\necho \"$*\" >> {folder}/calls\n{healed}\necho '{line}' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    said: list[str] = []
    request = BuildRequest(context=folder, platform="linux/amd64", contexts={}, secrets={}, build_args=())
    code = Buildx().build(request, ["--load"], on_line=said.append)
    assert code == (0 if heals else 1)
    assert said == ([line, WITHOUT_CACHE] if heals else [line, WITHOUT_CACHE, line])
    return (folder / "calls").read_text().splitlines()


@pytest.mark.parametrize("error", FAULTS)
@pytest.mark.parametrize("heals", [True, False])
def test_once_more_without_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str, *, heals: bool
) -> None:
    """Broken: after the engine damaged its cache, every build fails until somebody finds out about --no-cache."""
    first, second = played(tmp_path, monkeypatch, error, heals=heals)
    assert "--no-cache" not in first
    assert "--no-cache" in second


def test_other_failures_are_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: every failed build runs twice."""
    with pytest.raises(AssertionError):
        played(tmp_path, monkeypatch, "exit code: 1", heals=True)
    assert len((tmp_path / "calls").read_text().splitlines()) == 1
