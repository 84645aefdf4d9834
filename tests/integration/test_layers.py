"""Layers are made once: what is made and sent after a change, who finds a layer, and what faults leave behind."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from tests.integration.conftest import docker, images_of, own_name
from tests.integration.faults import Answer, Call, Exchange, FaultProxy, between
from tests.integration.nightly import INDEX, MANIFEST
from tests.integration.registries import Registry, an_open_registry
from tests.integration.shelf import Project, Shelf, open_shelf
from tests.integration.test_faults import stand_in
from tests.shared import Shared

pytestmark = pytest.mark.integration

__all__ = ["an_open_registry"]

TAG = "3.13-slim"
KEY = "io.gitlab.prebuilt.layer"
Json = dict[str, Any]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """Packages that every test can bump."""
    with open_shelf(tmp_path_factory.mktemp("shelf")) as opened:
        yield opened


def packages(shelf: Shelf, *, small: str = "1.0", large: str = "1.0") -> list[Json]:
    """Two small packages, two large ones."""
    return [
        shelf.wheel("small", small),
        shelf.wheel("tiny"),
        shelf.wheel("large", large, size=700_000),
        shelf.wheel("largest", size=1_500_000),
    ]


@dataclass(frozen=True)
class Case:
    """A project with a repository of its own and a cache of its own, behind a fault proxy."""

    project: Project
    proxy: FaultProxy
    registry: Registry
    shelf: Shelf
    path: str

    def lock(self, **versions: str) -> None:
        """Lock these versions of the packages."""
        self.project.packages(*packages(self.shelf, **versions))

    def push(self, *options: str, **env: str) -> Json:
        """Push, and return the cell's result."""
        done = self.project.builder("build", "--push", "--json", *options, env=env)
        assert done.returncode == 0, done.stderr
        (cell,) = json.loads(done.stdout)["cells"]
        return dict(cell)

    def plan(self, *options: str) -> dict[str, bool]:
        """Whether each layer exists, by what is in it."""
        done = self.project.builder("plan", "--json", *options)
        assert done.returncode == 0, done.stderr
        (cell,) = json.loads(done.stdout)["cells"]
        return {" ".join(layer["packages"]) or layer["kind"]: layer["exists"] for layer in cell["layers"] or ()}

    def sent(self) -> set[str]:
        """The blobs of the image that were uploaded since the last `forget`, each once; mounting one is none."""
        urls = (urlsplit(each.path) for each in self.proxy.seen("PUT", "/blobs/uploads/"))
        digests = [parse_qs(url.query)["digest"][0] for url in urls]
        table = manifest(self, TAG)
        assert table
        of_image = {part["digest"] for part in [table["config"], *table["layers"]]}
        assert len(digests) == len(set(digests))
        return of_image & set(digests)  # the others are the journal's

    def fresh(self, name: str) -> Case:
        """The same on another machine: with a cache of its own, and no images."""
        forget_images(self.project.repository)
        cache = self.project.folder.parent / name
        return replace(self, project=replace(self.project, env={**self.project.env, "BUILDER_CACHE_DIR": str(cache)}))

    @property
    def blobs(self) -> Path:
        """The folder of the local store's blobs."""
        return Path(self.project.env["BUILDER_CACHE_DIR"]) / "layers" / "blobs"


def forget_images(repository: str) -> None:
    """Remove a repository's images from the engine."""
    for tag in images_of(repository):
        docker("image", "rm", "--force", f"{repository}:{tag}")


@pytest.fixture(scope="session")
def foundation(shared: Shared) -> Path:
    """A cache that has the layers which no package is in: making them takes longest."""

    def make(folder: Path) -> str:
        env = {"BUILDER_CACHE_DIR": str(folder / "cache")}
        project = Project(folder=folder, repository="localhost/foundation", env=env)
        project.one_cell()
        project.packages()
        done = project.builder("build", "--no-verify")
        assert done.returncode == 0, done.stderr
        forget_images(project.repository)
        return str(folder / "cache")

    return Path(shared.once("foundation", make))


@pytest.fixture
def case(
    open_registry: Registry, shelf: Shelf, foundation: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Case]:
    """The project, with nothing built of its packages."""
    path = own_name(request)
    shutil.copytree(foundation / "layers", tmp_path / "cache" / "layers")
    folder = tmp_path / "project"
    folder.mkdir()
    with between(open_registry.host) as proxy:
        env = {"BUILDER_CACHE_DIR": str(tmp_path / "cache")}
        project = Project(folder=folder, repository=f"{proxy.host}/{path}", env=env)
        project.one_cell()
        made = Case(project=project, proxy=proxy, registry=open_registry, shelf=shelf, path=path)
        made.lock()
        yield made
        forget_images(project.repository)


def manifest(case: Case, tag: str, path: str = "") -> Json | None:
    """What a tag names, fetched past the proxy; None if there is no such tag."""
    url = f"http://{case.registry.host}/v2/{path or case.path}/manifests/{tag}"
    answer = requests.get(url, headers={"Accept": f"{INDEX}, {MANIFEST}"}, timeout=30)
    return dict(answer.json()) if answer.ok else None


def keys(table: Json | None) -> dict[str, str]:
    """The digests of an image's layers by key."""
    assert table
    found = ((layer.get("annotations") or {}, layer["digest"]) for layer in table["layers"])
    return {marks[KEY]: digest for marks, digest in found if KEY in marks}


def is_whole(case: Case, tag: str = TAG) -> bool:
    """Whether a tag names an image all of whose blobs are there, with the right bytes."""
    table = manifest(case, tag)
    assert table
    for part in [table["config"], *table["layers"]]:
        url = f"http://{case.registry.host}/v2/{case.path}/blobs/{part['digest']}"
        content = requests.get(url, timeout=60).content
        if f"sha256:{hashlib.sha256(content).hexdigest()}" != part["digest"]:
            return False
    return True


def test_bump_makes_and_sends_one_layer(case: Case) -> None:
    """Broken: a new version of one package costs more than that package."""
    case.push()
    before = keys(manifest(case, TAG))
    assert all(case.plan().values())
    case.lock(large="2.0")
    plan = case.plan()
    assert [what for what, exists in plan.items() if not exists] == ["large"]
    case.proxy.forget()
    checks = {check["name"]: check["evidence"] for check in case.push()["checks"]}
    assert "compared before" in checks["files"]
    assert "more had it before" in checks["bytecode"]
    after = keys(manifest(case, TAG))
    assert len(set(after) - set(before)) == 1
    assert len(set(after.values()) - set(before.values())) == 1
    # A client that has the older image unpacks only what is above the layers that both have: the new one, the notes.
    assert [key for key in before if key in after] == list(after)[:-1]
    # The layer, the notes, the config; the layer's own tag mounts it.
    assert len(case.sent()) == 3
    assert is_whole(case)


def test_moved_base_makes_no_layer_of_packages(case: Case, tmp_path: Path) -> None:
    """Broken: a new base image with the same Python makes or sends all packages again."""
    base, own = stand_in("python:3.13-slim-bookworm"), f"{case.registry.host}/base/python:3.13-slim-bookworm"
    push_base(base, own, "ENV BASE=1", tmp_path / "one")
    case.project.one_cell(base=own)
    case.push()
    before = keys(manifest(case, TAG))
    push_base(base, own, "RUN echo moved > /etc/moved", tmp_path / "two")
    plan = case.plan()
    assert {what for what, exists in plan.items() if not exists} == {"stdlib", "environment"}
    case.proxy.forget()
    case.push("--pull")
    after = keys(manifest(case, TAG))
    assert len(set(after) - set(before)) == 2
    # Bytecode, environment, notes, config, and one of the base.
    assert len(case.sent()) <= 5
    assert not case.sent() & set(before.values())
    docker("image", "rm", "--force", own)


def push_base(base: str, name: str, line: str, folder: Path) -> None:
    """Push a base image with one more line."""
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {base}\n{line}\n")
    subprocess.run(["docker", "build", "--quiet", "--tag", name, str(folder)], check=True, capture_output=True)
    docker("push", "--quiet", name)


def test_another_machine_makes_nothing(case: Case) -> None:
    """Broken: a runner without a cache of its own makes layers that are in the registry, or sends them again."""
    case.push()
    other = case.fresh("other-cache")
    other.lock(small="2.0")
    assert [what for what, exists in other.plan().items() if not exists] == ["small"]
    case.proxy.forget()
    other.push()
    assert len(case.sent()) == 3
    assert is_whole(case)


def test_forged_layer_of_a_branch(case: Case) -> None:
    """Broken: a merge request's pipeline puts its files into the default branch's image."""
    case.push("--branch", "evil")
    image = manifest(case, f"{TAG}-evil")
    assert image
    forged = {key: put_forged(case, key, "-evil") for key in keys(image)}
    other = case.fresh("default-cache")
    plan = other.plan()
    assert not any(plan.values()), plan
    other.push()
    found = keys(manifest(case, TAG))
    assert found.keys() == forged.keys()
    assert not set(found.values()) & set(forged.values())
    assert manifest(case, f"{next(iter(forged))}-evil", f"{case.path}/layers")


def put_forged(case: Case, key: str, suffix: str) -> str:
    """Put another layer under a key into the repository of layers, and return its digest."""
    content = gzip.compress(f"forged {key}".encode(), mtime=0)
    path = f"{case.path}/layers"
    digests = [put_blob(case, path, content), put_blob(case, path, b"{}")]
    marks = {KEY: key, "io.gitlab.prebuilt.diff-id": f"sha256:{'d' * 64}"}
    layer = {
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digests[0], "size": len(content),
        "annotations": marks,
    }  # fmt: skip
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digests[1], "size": 2}
    table = {"schemaVersion": 2, "mediaType": MANIFEST, "config": empty, "layers": [layer]}
    url = f"http://{case.registry.host}/v2/{path}/manifests/{key}{suffix}"
    answer = requests.put(url, data=json.dumps(table), headers={"Content-Type": MANIFEST}, timeout=30)
    answer.raise_for_status()
    return digests[0]


def put_blob(case: Case, path: str, content: bytes) -> str:
    """Upload a blob."""
    begun = requests.post(f"http://{case.registry.host}/v2/{path}/blobs/uploads/", timeout=30)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    requests.put(begun.headers["Location"], params={"digest": digest}, data=content, timeout=30).raise_for_status()
    return digest


def test_projects_share_a_repository_of_layers(case: Case) -> None:
    """Broken: two projects of a company make the same layer twice."""
    common = f'layers = "{case.proxy.host}/common-{case.path}"\n'
    case.project.one_cell(extra=common)
    case.push()
    other = case.fresh("second-cache")
    second = replace(other, project=replace(other.project, repository=f"{case.proxy.host}/second-{case.path}"))
    second.project.one_cell(extra=common)
    assert all(second.plan().values()), second.plan()
    case.proxy.forget()
    second.push()
    # Mounted, but for the notes and the config; the base's layers come from another registry.
    mounted = [each for each in case.proxy.seen("POST", "mount=") if f"common-{case.path}" in each.path]
    assert len(mounted) >= len(second.plan()) - 1
    forget_images(second.project.repository)


def test_prune_removes_layers_that_no_image_has(case: Case) -> None:
    """Broken: layers stay in the registry for ever, or prune removes one that an image needs."""
    case.push()
    first = keys(manifest(case, TAG))
    case.lock(large="2.0")
    case.push()
    second = keys(manifest(case, TAG))
    (old,) = set(first) - set(second)
    (new,) = set(second) - set(first)
    layers = f"{case.path}/layers"
    assert case.project.builder("prune", "--hours", "0", "--keep", "2", "--delete").stdout == ""
    assert case.project.builder("prune", "--keep", "0", "--delete").stdout == ""  # all of them were made just now
    assert manifest(case, old, layers)
    done = case.project.builder("prune", "--hours", "0", "--keep", "0", "--delete")
    assert f"{case.project.repository}/layers:{old}" in done.stdout.split()
    assert manifest(case, old, layers) is None
    assert manifest(case, new, layers)
    assert is_whole(case)
    # What is left is enough: another machine makes nothing.
    case.proxy.forget()
    assert case.fresh("other-cache").push()["outcome"] == "up-to-date"


def test_lost_and_damaged_blobs_are_made_again(case: Case) -> None:
    """Broken: a layer that a registry lost, or that a disk damaged, gets into an image or stops every build."""
    case.push()
    found = keys(manifest(case, TAG))
    for number, blob in enumerate(sorted(case.blobs.iterdir())):
        if number % 2:
            blob.write_bytes(b"damaged")
    for digest in list(found.values())[:2]:  # as a registry whose disk was restored from a backup
        for path in (case.path, f"{case.path}/layers"):
            requests.delete(f"http://{case.registry.host}/v2/{path}/blobs/{digest}", timeout=30).raise_for_status()
    case.lock(small="2.0")
    forget_images(case.project.repository)
    case.push()
    assert is_whole(case)


def test_registry_with_other_bytes(case: Case) -> None:
    """Broken: a layer with wrong bytes in the registry gets into an image, or stops every build."""
    case.push()
    other = case.fresh("other-cache")
    other.lock(small="2.0")
    lost = keys(manifest(case, TAG))
    wrong = next(iter(lost.values()))
    case.proxy.on("GET", f"/blobs/{wrong}$", Answer(status=200, body=b"other bytes"), times=None)
    cell = other.push()
    assert cell["outcome"] == "pushed"


def test_two_builds_at_once(case: Case) -> None:
    """Broken: two pipelines that make the same layers at once break each other."""
    case.lock(small="3.0", large="3.0")
    started = [case.project.start("build", "--push", "--json") for _ in range(2)]
    ended = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], ended
    assert is_whole(case)


@pytest.mark.parametrize("moment", ["layers are made", "first upload", "tag is written"])
def test_killed(case: Case, moment: str) -> None:
    """Broken: a run that was killed leaves something that breaks the next one, or a tag without its layers."""
    process = case.project.start("build", "--push")

    def kill(_: Exchange) -> None:
        process.kill()
        process.wait()

    if moment == "layers are made":
        end = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < end and not list(case.blobs.glob(".new-*")):
            time.sleep(0.005)
        process.kill()
    else:
        method, path = ("PUT", "/blobs/uploads/") if moment == "first upload" else ("PUT", "/manifests/3.13-slim-")
        case.proxy.on(method, path, Call(kill))
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert manifest(case, TAG) is None
    case.proxy.forget()
    case.push()
    assert is_whole(case)


@pytest.mark.parametrize("nth", [1, 3])
def test_registry_that_fails_between_layers(case: Case, nth: int) -> None:
    """Broken: a registry that fails while layers are sent gets a tag on an image that lacks some."""
    case.proxy.on("PUT", "/blobs/uploads/", Answer(status=507), nth=nth, times=None)
    done = case.project.builder("build", "--push")
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert manifest(case, TAG) is None
    assert not [each for each in case.proxy.seen("PUT", "/manifests/") if each.status and each.status < 300]
    case.proxy.forget()
    case.push()
    assert is_whole(case)


def test_unchanged_build_makes_nothing(case: Case) -> None:
    """Broken: a build without changes makes layers or verifies again."""
    case.push()
    built = [json.loads(case.project.builder("build", "--json").stdout)["cells"] for _ in range(2)]
    assert [cell["outcome"] for (cell,) in built] == ["up-to-date", "up-to-date"]
    assert built[0] == [{**cell, "seconds": built[0][0]["seconds"]} for cell in built[1]]
    (cell,) = json.loads(case.project.builder("build", "--reverify", "--json").stdout)["cells"]
    assert cell["outcome"] == "verified"
    assert [check["evidence"] for check in cell["checks"] if "before" in check["evidence"]] == []
