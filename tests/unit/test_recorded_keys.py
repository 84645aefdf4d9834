"""Recorded keys of four cells: two Pythons on two bases, as in examples/webshop, with every kind of input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builder.image.render import render
from builder.oci.reference import Digest
from tests.locks import FILES, fake_hash, package, pure, sdist
from tests.plans import plans_of

MATRIX = """\
python = ["3.11", "3.13"]
base = ["bookworm-slim", "alpine"]
uv = "0.13.8"
refresh = "weekly"

[install]
groups = ["dev"]

[bases.bookworm-slim]
image = "docker.io/library/python:{python}-slim-bookworm"
family = "debian"
packages = ["gcc", "libc6-dev"]

[bases.alpine]
image = "docker.io/library/python:{python}-alpine"
family = "alpine"
packages = ["build-base"]
"""

PYPROJECT = """\
[project]
name = "webshop"
version = "0.1.0"

[build-system]
requires = ["hatchling>=1.27", "hatch-vcs"]
build-backend = "hatchling.build"

[tool.uv]
build-constraint-dependencies = ["hatchling==1.27.0"]
exclude-newer = "2026-01-01T00:00:00Z"

[[tool.uv.index]]
url = "https://jane:hunter2@index.invalid/simple"
default = true
"""

PACKAGES: list[dict[str, Any]] = [
    {"name": "webshop", "directory": {"path": "."}},
    {"name": "links", "directory": {"path": "links"}},
    package(
        "fast", "2.1",
        *(f"cp{python}-cp{python}-{libc}_x86_64"
          for python in ("311", "313") for libc in ("manylinux_2_17", "musllinux_1_2")),
    ),
    {"name": "from-source", "version": "3.0", "index": "https://index.invalid/simple",
     "sdist": sdist("from-source", "3.0")},
    {"name": "forked", "vcs": {"type": "git", "url": "https://git.invalid/forked.git", "commit-id": "ab" * 20}},
    {"name": "zipped", "version": "1.0", "archive": {
        "url": f"{FILES}/zipped-main.zip", "hashes": {"sha256": fake_hash("zipped")}}},
    pure("small", "0.9.post1"),
    pure("backport", "1.4", marker="python_version < '3.12'"),
    pure("windows-only", "1.0", marker="sys_platform == 'win32'"),
]  # fmt: skip

KEYS = {
    "3.11-bookworm-slim": "3a8fa12f603faac63bc48bf1f3dc3deaed1e708cd6cf48f0b2cefeb8ba383267",
    "3.11-alpine": "5fd0eb167d1fe01423cae3ee6654e68502de8e4ab5d0bbaabb00260fef1a7a02",
    "3.13-bookworm-slim": "7ea47e3971c8efeea9aca6b6390d3148d90e51e6510282695ae098ebd0d9dc5f",
    "3.13-alpine": "48fb0df69c4781ad74c50f67ad984aa809abf694987fbbed296accfe0d35c38a",
}


def test_keys_are_the_recorded_ones(tmp_path: Path, base_digest: Digest, uv_digest: Digest) -> None:
    """Broken: updating builder rebuilds everybody's images, and no line in CHANGELOG.md says why.

    A changed key here means that every project's images are built again after the update. Where that is intended,
    record the new keys together with a line in the changelog that gives the reason.
    """
    (tmp_path / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    plans = plans_of(tmp_path, MATRIX, *PACKAGES, base_digest=base_digest, uv_digest=uv_digest)
    assert {plan.cell.name: render(plan).key for plan in plans} == KEYS
