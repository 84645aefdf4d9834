"""A GitLab job's own logins are enough, also for images that buildx fetches; no `docker login` is needed."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

from tests.integration.conftest import docker, images_of, own_name
from tests.integration.nightly import Nightly
from tests.integration.registries import USER, Registry, a_guarded_registry
from tests.integration.test_faults import stand_in

pytestmark = pytest.mark.integration

__all__ = ["a_guarded_registry"]

PROXY = "acme/dependency_proxy/containers"


@pytest.fixture
def nightly(guarded_registry: Registry, tmp_path: Path, request: pytest.FixtureRequest) -> Nightly:
    """A project behind a dependency proxy with a password, on an engine that a Docker context names."""
    variables = guarded_registry.environment(tmp_path / "login")
    base = f"{guarded_registry.host}/{PROXY}/library/python:3.13-slim-bookworm"
    docker("pull", "--quiet", stand_in("python:3.13-slim-bookworm"))
    docker("tag", stand_in("python:3.13-slim-bookworm"), base)
    docker("--config", variables["DOCKER_CONFIG"], "push", "--quiet", base)
    docker("image", "rm", base)
    config = tmp_path / "docker"
    host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    docker("--config", str(config), "context", "create", "here", "--docker", f"host={host}")
    mirrors = {
        **dict(pair.split("=", 1) for pair in os.environ.get("BUILDER_MIRRORS", "").split(",") if pair),
        "docker.io": f"{guarded_registry.host}/{PROXY}",
    }
    env = {
        **variables, "DOCKER_CONFIG": str(config), "DOCKER_HOST": "", "DOCKER_CONTEXT": "here",
        "BUILDER_MIRRORS": ",".join(f"{name}={mirror}" for name, mirror in mirrors.items()),
    }  # fmt: skip
    made = Nightly(folder=tmp_path, repository=f"logins.example/{own_name(request)}", env=env)
    made.lock()
    made.matrix()
    return made


def test_dependency_proxy_needs_no_login(nightly: Nightly, guarded_registry: Registry) -> None:
    """Broken: a job behind the dependency proxy cannot read its base image, or uses another engine."""
    only = ("build", "--only", "python=3.13", "--json")
    assert nightly.builder(*only).returncode == 3
    login = {
        "CI_DEPENDENCY_PROXY_SERVER": guarded_registry.host, "CI_DEPENDENCY_PROXY_USER": USER,
        "CI_DEPENDENCY_PROXY_PASSWORD": guarded_registry.password,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        done = nightly.builder(*only, "--pull", env={**login, "TMPDIR": scratch})
        left = list(Path(scratch).iterdir())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cells"][0]["outcome"] == "verified"
    assert guarded_registry.password not in done.stdout + done.stderr
    assert not Path(nightly.env["DOCKER_CONFIG"], "config.json").exists()
    assert left == []
    for tag in images_of(nightly.repository):
        docker("image", "rm", "--force", f"{nightly.repository}:{tag}")
