"""Images for two platforms: one index for each tag, complete or not at all."""

from __future__ import annotations

import io
import json
import subprocess
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from uv import find_uv_bin

from builder.contract import CELL_LABEL, CONFIG_TYPE, KEY_LABEL, MANIFEST_TYPE
from builder.errors import RegistryError
from builder.image.index import indexes_of
from builder.image.render import RenderedImage
from builder.matrix.model import Platform
from builder.oci.manifest import Manifest, descriptor, digest_of, encode_json
from builder.oci.reference import Digest, Mirrors
from builder.oci.registry import Registries
from builder.release.index import put_index
from builder.release.prune import Retention, delete_unused, fetch_candidates
from builder.verify.script import INSIDE
from tests import cells
from tests.integration.conftest import docker, images_of, own_name
from tests.integration.registries import Registry, an_open_registry
from tests.integration.shelf import Project
from tests.integration.test_cross import OTHER, PYPROJECT, names
from tests.integration.test_layer_tree import own_environment
from tests.layers import chosen, rendered

pytestmark = pytest.mark.integration

__all__ = ["an_open_registry", "names"]

OWN = Platform.of_this_machine().architecture
TAG = "3.13-slim"


@pytest.fixture
def project(open_registry: Registry, names: tuple[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> Project:
    """A project with one cell for two platforms; all of its packages have wheels, one of them with machine code."""
    folder = tmp_path / "project"
    folder.mkdir()
    repository = f"{open_registry.host}/{own_name(request)}/ci"
    made = Project(folder=folder, repository=repository, env=own_environment(tmp_path))
    base, uv = names
    platforms = json.dumps([f"linux/{OWN}", f"linux/{OTHER}"])
    made.one_cell(base=base, extra=f'uv-image = "{uv}"\nplatforms = {platforms}\naliases = {{ latest = "{TAG}" }}\n')
    (folder / "pyproject.toml").write_text(PYPROJECT)
    subprocess.run([find_uv_bin(), "lock", "--quiet"], cwd=folder, check=True)
    return made


def run(project: Project, *arguments: str, code: int = 0) -> Any:
    """Run a command; return what it prints, as JSON if it is."""
    done = project.builder(*arguments)
    assert done.returncode == code, done.stdout + done.stderr
    return (json.loads(done.stdout) if done.stdout.startswith("{") else done.stdout), done.stderr


def named(project: Project, registry: Registry, tag: str) -> Manifest | None:
    """What a tag names in the registry."""
    ref = registry.ref(project.repository.partition("/")[2]).with_tag(tag)
    return Registries(Mirrors()).fetch_manifest(ref)


def vouch(folder: Path, cell: dict[str, Any]) -> None:
    """Write what a job on a machine of the other kind writes when every check has passed."""
    checks = [{"name": name, "verdict": "passed", "evidence": "fine", "seconds": 0.1} for name in INSIDE]
    results = {"image": cell["tags"][0], "id": cell["digest"], "checks": checks}
    (folder / cell["name"] / "results.json").write_text(json.dumps(results))


def pushed_in_part(project: Project, registry: Registry) -> str:
    """Build for both platforms: nothing here runs the other image, so no tag moves. Return the own digest."""
    done, said = run(project, "build", "--push", "--maker", "cross", "--json", code=4)
    own, other = done["cells"]
    assert (own["outcome"], other["outcome"], done["promotion"]) == ("pushed", "unverified", [])
    assert f"{TAG}-{OTHER} was made, but not verified: nothing here runs programs for linux/{OTHER}" in said
    checks = {check["name"]: check for check in other["checks"]}
    assert {name: check["verdict"] for name, check in checks.items()} == {
        "architecture": "passed", "no-secrets": "passed", **dict.fromkeys(INSIDE, "skipped"),
    }  # fmt: skip
    assert f"for {Platform(architecture=OTHER).machine}" in checks["architecture"]["evidence"]
    immutable = other["tags"][0].rpartition(":")[2]
    assert named(project, registry, f"{immutable}-unverified")
    assert [named(project, registry, tag) for tag in (immutable, TAG)] == [None, None]
    return str(own["digest"])


def vouched_for(project: Project, folder: Path) -> str:
    """Do what the jobs of a child pipeline do, one of them on a runner of the other kind; return the digest."""
    pipeline = yaml.safe_load(run(project, "ci", "pipeline", "--runners", f"linux/{OTHER}=small,other")[0])
    build, verify = f"build {TAG}-{OTHER}", f"verify {TAG}-{OTHER}"
    assert list(pipeline) == ["stages", build, verify, "promote"]
    assert "tags" not in pipeline[build]  # wheels are installed anywhere
    assert pipeline[verify]["tags"] == ["small", "other"]
    words = ["build", "--push", "--verify-later", str(folder), "--platform", f"linux/{OTHER}"]
    assert set(words) - {str(folder)} < set(pipeline[build]["script"][0].split())
    done, said = run(project, *words, "--json")
    (cell,) = done["cells"]
    assert (cell["outcome"], cell["made_by"]) == ("handed-over", None)  # of layers that are there
    assert f"maker: cross: BuildKit runs no programs for linux/{OTHER}" in said
    vouch(folder, cell)
    done, _ = run(project, "promote", "--results", str(folder), "--json")
    assert {move["tag"] for move in done["promotion"]} == {TAG, "latest"}
    return str(cell["digest"])


def test_one_index_for_each_tag(project: Project, open_registry: Registry, tmp_path: Path) -> None:
    """Broken: a tag names an image for one platform only, one that nobody verified, or a new index each time."""
    planned, _ = run(project, "plan", "--json")
    assert [(cell["name"], cell["status"]) for cell in planned["cells"]] == [
        (f"{TAG}-{architecture}", "new") for architecture in (OWN, OTHER)
    ]
    own = pushed_in_part(project, open_registry)
    assert "omit it" in run(project, "promote", "--platform", f"linux/{OWN}", code=2)[1]
    other = vouched_for(project, tmp_path / "later")

    (index,) = {cell["index"]["tag"] for cell in planned["cells"]}
    manifest = named(project, open_registry, TAG)
    assert manifest
    assert [named(project, open_registry, tag) for tag in (index.rpartition(":")[2], "latest")] == [manifest] * 2
    found = {entry["platform"]["architecture"]: entry["digest"] for entry in manifest.table["manifests"]}
    assert found == {OWN: own, OTHER: other}
    image = f"{project.repository}:{TAG}"
    assert (
        docker("run", "--rm", "--pull", "always", "--quiet", image, "uname", "-m") == Platform.of_this_machine().machine
    )

    # Then nothing is left to do, and nobody deletes a part of the index.
    run(project, "plan", "--exit-code")
    assert "nothing to do: 2 cells are up to date" in run(project, "build", "--push")[1]
    assert run(project, "prune", "--delete", "--hours", "0", "--keep", "0")[0] == ""
    assert named(project, open_registry, TAG) == manifest
    assert "no difference" in run(project, "diff", TAG, "--platform", f"linux/{OTHER}")[0]
    assert f".prebuilt-{TAG}:" in run(project, "ci", "images")[0]

    # A run for one of the platforms moves no tag.
    path = project.folder / "matrix.toml"
    path.write_text(path.read_text().replace("uv-image", 'link-mode = "symlink"\nuv-image'))
    done, _ = run(project, "build", "--push", "--maker", "cross", "--json", "--platform", f"linux/{OWN}")
    assert [cell["outcome"] for cell in done["cells"]] == ["pushed"]
    assert (done["promotion"], named(project, open_registry, TAG)) == ([], manifest)
    for tag in images_of(project.repository):
        docker("image", "rm", "--force", f"{project.repository}:{tag}")


def put_image(image: RenderedImage, marker: str, registries: Registries) -> Digest:
    """Put an image without layers under the cell's immutable tag."""
    config = encode_json({"config": {"Labels": {KEY_LABEL: image.key, CELL_LABEL: image.plan.cell.name, "m": marker}}})
    ref = image.immutable_tag
    registries.put_blob(ref, digest_of(config), partial(io.BytesIO, config))
    manifest = Manifest.of(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, **descriptor(config)},
            "layers": [],
        }
    )
    registries.put_manifest(ref, manifest)
    return manifest.digest


def test_index_that_has_lost_an_image(open_registry: Registry, request: pytest.FixtureRequest) -> None:
    """Broken: an image that was deleted stays in the index, or two machines make two indexes of the same images."""
    registries = Registries(Mirrors())
    repository = open_registry.ref(own_name(request))
    platforms = tuple(Platform(architecture=each) for each in ("amd64", "arm64"))
    of = [replace(cells.debian(architecture=each.architecture), platforms=platforms) for each in platforms]
    images = [rendered([chosen("one")], cell, repository=repository, moving_tags=(cell.tag,)) for cell in of]
    (index,) = indexes_of(images)
    digests = [put_image(image, "first", registries) for image in images]
    first = put_index(index, digests, registries)
    assert put_index(index, digests, registries) == first
    assert registries.fetch_digest(index.immutable_tag) == first.digest

    registries.delete(repository.with_digest(digests[1]))
    with pytest.raises(RegistryError, match=r"no longer has sha256:.* for linux/arm64"):
        put_index(index, digests, registries)
    again = [digests[0], put_image(images[1], "second", registries)]
    second = put_index(index, again, registries)
    manifest = registries.fetch_manifest(index.immutable_tag)
    assert manifest
    assert (manifest.digest, list(manifest.children)) == (second.digest, again)

    # Of images and index, each with its own tag, nothing is left once nobody wants them.
    past, future = (datetime.now(timezone.utc) + timedelta(days=days) for days in (-1, 1))
    kept = Retention(generations=0, keys={index.key}, pushed_after=future, promoted_after=past, deleted_branch="")
    assert [each.ref.tag for each in fetch_candidates(repository, registries, kept)] == []
    gone = [each.ref for each in delete_unused(repository, registries, replace(kept, keys=()))]
    assert set(gone) == {index.immutable_tag, *(image.immutable_tag for image in images)}
    assert [registries.fetch_digest(ref) for ref in gone] == [None] * 3
