"""A project whose images are pushed repeatedly: two Pythons, a lock of three small packages, any repository."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from uv import find_uv_bin

from tests.integration.conftest import builder_argv

PYPROJECT = """\
[project]
name = "nightly"
version = "1"
requires-python = ">=3.11"
dependencies = [
    "idna=={idna}",
    "colorama=={colorama}; sys_platform == 'win32'",
    "tomli=={tomli}; python_version < '3.12'",
]

[tool.uv]
package = false
"""

MATRIX = """\
repository = "{repository}"
python = ["3.11", "3.13"]
base = ["slim"]
{extra}
[bases.slim]
image = "{base}"
family = "debian"
"""

SLIM = "docker.io/library/python:{python}-slim-bookworm"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
TAGS = ("3.11-slim", "3.13-slim")


@dataclass(kw_only=True)
class Nightly:
    """The project in its folder, and what `builder` is started with for it."""

    folder: Path
    repository: str
    env: Mapping[str, str]

    def lock(self, *, idna: str = "3.10", colorama: str = "0.4.5", tomli: str = "2.0.1") -> None:
        """Write the project and lock it."""
        (self.folder / "pyproject.toml").write_text(PYPROJECT.format(idna=idna, colorama=colorama, tomli=tomli))
        subprocess.run([find_uv_bin(), "lock", "--quiet"], cwd=self.folder, check=True)

    def matrix(self, *, base: str = SLIM, extra: str = "") -> None:
        """Write the matrix; `base` has {python} in it."""
        text = MATRIX.format(repository=self.repository, base=base, extra=extra)
        (self.folder / "matrix.toml").write_text(text)

    def builder(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run builder to its end."""
        return subprocess.run(
            builder_argv(*arguments), cwd=self.folder, env={**os.environ, **self.env, **(env or {})},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start builder and return at once."""
        return subprocess.Popen(
            builder_argv(*arguments), cwd=self.folder, env={**os.environ, **self.env},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def outcomes(self, *arguments: str) -> dict[str, str]:
        """Push everything and return each cell's outcome."""
        done = self.builder("build", "--push", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return {cell["name"]: cell["outcome"] for cell in json.loads(done.stdout)["cells"]}

    def plan(self) -> dict[str, dict[str, Any]]:
        """Each cell of the plan, by name."""
        done = self.builder("plan", "--json")
        assert done.returncode == 0, done.stderr
        return {cell["name"]: cell for cell in json.loads(done.stdout)["cells"]}


def standing(host: str, path: str, tags: Sequence[str] = TAGS) -> dict[str, str | None]:
    """The digests that tags name in an open registry, fetched without builder."""
    accept = {"Accept": f"{INDEX}, {MANIFEST}"}
    found = {}
    for tag in tags:
        response = requests.head(f"http://{host}/v2/{path}/manifests/{tag}", headers=accept, timeout=30)
        found[tag] = response.headers.get("Docker-Content-Digest") if response.ok else None
    return found


def put_foreign(host: str, path: str, tag: str, labels: Mapping[str, str] | None = None) -> str:
    """Put a tag on an image that builder did not build, with these labels; return its digest."""
    empty = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    config = json.dumps({**empty, "config": {"Labels": dict(labels or {})}}).encode()
    begun = requests.post(f"http://{host}/v2/{path}/blobs/uploads/", timeout=30)
    digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    where = begun.headers["Location"]
    requests.put(where, params={"digest": digest}, data=config, timeout=30).raise_for_status()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": len(config)},
            "layers": [],
        }
    ).encode()
    url = f"http://{host}/v2/{path}/manifests/{tag}"
    requests.put(url, data=manifest, headers={"Content-Type": MANIFEST}, timeout=30).raise_for_status()
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"
