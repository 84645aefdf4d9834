"""A verified image is neither built nor verified again, and an unverified one never counts as verified."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.conftest import docker, own_name
from tests.integration.nightly import Nightly
from tests.integration.registries import Registry, an_open_registry

pytestmark = pytest.mark.integration

__all__ = ["an_open_registry"]

ONE = ("--only", "python=3.13")
TAG = "3.13-slim"


@pytest.fixture
def nightly(open_registry: Registry, tmp_path: Path, request: pytest.FixtureRequest) -> Nightly:
    """A small project with its own repository and records."""
    cache = {"BUILDER_CACHE_DIR": str(tmp_path / "cache")}
    made = Nightly(folder=tmp_path, repository=f"{open_registry.host}/{own_name(request)}", env=cache)
    made.lock()
    made.matrix()
    return made


def build(nightly: Nightly, *arguments: str) -> str:
    """Build the only cell and return its outcome."""
    done = nightly.builder("build", *ONE, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    (cell,) = json.loads(done.stdout)["cells"]
    return str(cell["outcome"])


def test_unchanged_image_is_left_alone(nightly: Nightly) -> None:
    """Broken: every local build verifies unchanged images again, or ignores a changed lock or --reverify."""
    assert build(nightly) == "verified"
    assert build(nightly) == "up-to-date"
    assert build(nightly, "--reverify") == "verified"
    nightly.lock(idna="3.11")
    assert build(nightly) == "verified"


def test_other_image_under_the_tag_is_not_trusted(nightly: Nightly) -> None:
    """Broken: a record of one image is used for another image that has its tag now."""
    assert build(nightly) == "verified"
    key = nightly.plan()[TAG]["key"]
    other = docker("image", "inspect", "--format", "{{.Id}}", nightly.plan()["3.13-slim"]["tags"][0])
    tag = f"{nightly.repository}:{TAG}-{key[:12]}"
    assert docker("image", "inspect", "--format", "{{.Id}}", tag) == other
    context = nightly.folder / "other"
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM {tag}\nRUN rm -r /opt/uv/cache\n")
    docker("build", "--quiet", "--provenance=false", "--tag", tag, str(context))
    assert build(nightly) == "verified"
    assert docker("image", "inspect", "--format", "{{.Id}}", tag) == other


def test_unverified_image_is_not_pushed(nightly: Nightly) -> None:
    """Broken: an image that was built with --no-verify is pushed."""
    assert build(nightly, "--no-verify") == "built"
    refused = nightly.builder("push", *ONE)
    assert refused.returncode == 4
    assert "not in the registry or, verified, in the engine" in refused.stderr
    assert build(nightly) == "verified"
    assert nightly.builder("push", *ONE).returncode == 0
