"""Images that tests begin with: built, verified and pushed once in a run, then copied to any test's repository."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.integration.nightly import INDEX, MANIFEST, TAGS, Nightly
from tests.integration.registries import Registry
from tests.shared import Shared


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """The images, in a repository of the open registry and, under the same name, in the engine."""

    shared: Shared
    registry: Registry
    path: str = "seeds"
    options: tuple[str, ...] = ()  # of `builder build`

    @property
    def attested(self) -> Seeds:
        """The same with a provenance, in another repository because their keys are the same."""
        return Seeds(shared=self.shared, registry=self.registry, path="seeds-attested", options=("--provenance",))

    @property
    def repository(self) -> str:
        """The name of the repository."""
        return f"{self.registry.host}/{self.path}"

    def publish(self, nightly: Nightly, *options: str, tags: Sequence[str] = TAGS) -> None:
        """Do what `builder build --push` does with these options and the project's lock, at an open registry.

        The immutable tags of these cells are copied from here; `builder promote` moves the others.
        """
        host, _, path = nightly.repository.partition("/")
        for tag in tags:
            found = self.find(nightly, tag)
            self._copy(found, host, path)
        done = nightly.builder("promote", *options)
        assert done.returncode == 0, done.stderr

    def find(self, nightly: Nightly, tag: str) -> str:
        """Return the immutable tag of the cell's image for the project's lock; build and push it if nobody has."""
        lock = (nightly.folder / "uv.lock").read_bytes()

        def make(folder: Path) -> str:
            for name in ("pyproject.toml", "uv.lock"):
                (folder / name).write_bytes((nightly.folder / name).read_bytes())
            made = Nightly(folder=folder, repository=self.repository, env={})
            made.matrix()
            only = ("--only", f"python={tag.partition('-')[0]}")
            done = made.builder("build", "--push", "--promote", "none", "--json", *only, *self.options)
            assert done.returncode == 0, done.stderr
            (cell,) = json.loads(done.stdout)["cells"]
            return str(cell["tags"][0].rpartition(":")[2])

        return self.shared.once(f"{self.path}-{tag}-{hashlib.sha256(lock).hexdigest()[:12]}", make)

    def _copy(self, reference: str, host: str, path: str) -> None:
        """Copy what a tag or digest names, with all that it refers to."""
        accept = {"Accept": f"{INDEX}, {MANIFEST}"}
        source = f"http://{self.registry.host}/v2/{self.path}/manifests/{reference}"
        found = requests.get(source, headers=accept, timeout=30)
        found.raise_for_status()
        table = found.json()
        for entry in table.get("manifests", ()):
            self._copy(entry["digest"], host, path)
        for blob in [*table.get("layers", ()), *([table["config"]] if "config" in table else [])]:
            self._copy_blob(blob["digest"], host, path)
        kind = {"Content-Type": found.headers["Content-Type"]}
        target = f"http://{host}/v2/{path}/manifests/{reference}"
        requests.put(target, data=found.content, headers=kind, timeout=30).raise_for_status()

    def _copy_blob(self, digest: str, host: str, path: str) -> None:
        uploads = f"http://{host}/v2/{path}/blobs/uploads/"
        begun = requests.post(uploads, params={"mount": digest, "from": self.path}, timeout=30)
        if begun.status_code != 201:  # another registry
            source = f"http://{self.registry.host}/v2/{self.path}/blobs/{digest}"
            blob = requests.get(source, timeout=30)
            blob.raise_for_status()
            where = begun.headers["Location"]
            requests.put(where, params={"digest": digest}, data=blob.content, timeout=30).raise_for_status()


@pytest.fixture(scope="session", name="seeds")
def published_once(open_registry: Registry, shared: Shared) -> Seeds:
    """The images of `Nightly` projects."""
    return Seeds(shared=shared, registry=open_registry)
