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
    "3.11-bookworm-slim": "69dcb936a04e3286bb90c71bd26652583e24eb0804669bc5adcff211d2b78319",
    "3.11-alpine": "7c7280783616788a9a0206e2f58267b98fde40351dac4faba71ca943ff8d8a56",
    "3.13-bookworm-slim": "92829e12622d265c0253c6d34f4b9be9ad067661adc810ae2b144adace5c219c",
    "3.13-alpine": "0d066aaeae6562e6016008c3846cadce517479332e9286b637e685551c8d608b",
}


def test_keys_are_the_recorded_ones(tmp_path: Path, base_digest: Digest, uv_digest: Digest) -> None:
    """Broken: updating builder rebuilds everybody's images, and no line in CHANGELOG.md says why.

    A changed key here means that every project's images are built again after the update. Where that is intended,
    record the new keys together with a line in the changelog that gives the reason.
    """
    (tmp_path / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    plans = plans_of(tmp_path, MATRIX, *PACKAGES, base_digest=base_digest, uv_digest=uv_digest)
    assert {plan.cell.name: render(plan).key for plan in plans} == KEYS
