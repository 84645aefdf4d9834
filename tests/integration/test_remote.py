"""A remote builder: images are verified by the engine on this machine, or on the builder if there is none."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.integration.builders import buildkit_of
from tests.integration.conftest import docker, images_of, own_name
from tests.integration.nightly import Nightly, standing
from tests.integration.registries import Registry, an_open_registry
from tests.integration.test_attestations import attested, provenance, subjects
from tests.integration.test_faults import stand_in
from tests.integration.test_publish import NO_ENGINE

pytestmark = pytest.mark.integration

__all__ = ["an_open_registry"]

CELL = ("--only", "python=3.13")
ELSEWHERE = ("--builder", "elsewhere")
CHECKS = {
    "sync-frozen", "second-environment", "python-version-file", "uv-pip", "bytecode", "any-user", "installed-set",
    "no-secrets", "project-offline", "contract", "files", "libraries", "activated-environment", "tools",
}  # fmt: skip


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A BuildKit that buildx knows as `elsewhere`, with its driver `remote`; the variables that select it.

    It is the engine's own, but buildx and builder do not know that.
    """
    engine = docker("context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
    env = {"DOCKER_CONFIG": str(tmp_path_factory.mktemp("docker"))}
    # A short name: a socket's path has 107 characters at most.
    with tempfile.TemporaryDirectory() as folder, buildkit_of(engine, Path(folder, "buildkit.sock")) as address:
        argv = ["docker", "buildx", "create", "--name", "elsewhere", "--driver", "remote", address]
        subprocess.run(argv, env={**os.environ, **env}, check=True, capture_output=True)
        yield env


@pytest.fixture
def nightly(
    open_registry: Registry, elsewhere: Mapping[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Nightly]:
    """The project with its own repository; its images are removed from the engine on this machine."""
    name = own_name(request)
    made = Nightly(folder=tmp_path, repository=f"{open_registry.host}/{name}", env=elsewhere)
    made.lock()
    made.matrix()
    yield made
    for tag in images_of(made.repository):
        docker("image", "rm", "--force", f"{made.repository}:{tag}")


def test_builder_alone(nightly: Nightly, open_registry: Registry) -> None:
    """Broken: a runner with a builder and no Docker publishes nothing, or images without verification."""
    done = nightly.builder("build", "--push", "--json", *CELL, *ELSEWHERE, env=NO_ENGINE)
    assert done.returncode == 0, done.stderr
    (cell,) = json.loads(done.stdout)["cells"]
    assert cell["outcome"] == "pushed"
    assert {check["name"]: check["verdict"] for check in cell["checks"]} == dict.fromkeys(CHECKS, "passed")
    tags = [tag.rpartition(":")[2] for tag in cell["tags"]]
    path = nightly.repository.partition("/")[2]
    assert standing(open_registry.host, path, tags) == dict.fromkeys(tags, cell["digest"])
    assert images_of(nightly.repository) == []
    image = f"{nightly.repository}:3.13-slim"
    docker("pull", "--quiet", image)
    verified = nightly.builder("verify", image)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def put_base(open_registry: Registry, folder: Path, *steps: str) -> str:
    """Push a base with more steps than the stand-in's; return its name for a matrix."""
    own = hashlib.sha256(str(folder).encode()).hexdigest()[:12]  # workers have folders of one name, and one registry
    name = f"{open_registry.host}/{own}/python:3.13-slim-bookworm"
    (folder / "Dockerfile").write_text("\n".join([f"FROM {stand_in('python:3.13-slim-bookworm')}", *steps, ""]))
    argv = ["docker", "build", "--quiet", "--provenance=false", "--tag", name, str(folder)]
    subprocess.run(argv, check=True, capture_output=True)
    docker("push", "--quiet", name)
    docker("image", "rm", "--force", name)
    return name.replace("3.13", "{python}")


BROKEN: dict[str, tuple[set[str], set[str]]] = {
    # The image inherits each from its base: uv does not look into the warm cache, or no job starts at all.
    "ENV UV_NO_CACHE=1": ({"second-environment", "any-user"}, {"bytecode"}),
    'ENTRYPOINT ["/bin/false"]': ({"sync-frozen", "bytecode", "installed-set"}, {"no-secrets"}),
}


@pytest.mark.parametrize("step", BROKEN)
def test_broken_promise_seen_by_the_builder_alone(nightly: Nightly, open_registry: Registry, step: str) -> None:
    """Broken: a machine without an engine publishes an image that fails verification."""
    base = put_base(open_registry, nightly.folder, step)
    nightly.matrix(base=base)
    done = nightly.builder("build", "--push", "--json", *CELL, *ELSEWHERE, env=NO_ENGINE)
    (cell,) = json.loads(done.stdout)["cells"]
    assert (done.returncode, cell["outcome"]) == (1, "verify-failed"), done.stderr
    verdicts = {check["name"]: check["verdict"] for check in cell["checks"]}
    failed, passed = BROKEN[step]
    assert {verdicts[name] for name in failed} == {"failed"}
    assert {verdicts[name] for name in passed} == {"passed"}
    tags = [tag.rpartition(":")[2] for tag in cell["tags"]]
    assert set(standing(open_registry.host, nightly.repository.partition("/")[2], tags).values()) == {None}


def test_attested_by_a_builder_alone(nightly: Nightly) -> None:
    """Broken: a remote builder's attestations are lost."""
    done = nightly.builder("build", "--push", *CELL, *ELSEWHERE, "--provenance=max", env=NO_ENGINE)
    assert done.returncode == 0, done.stderr
    found = attested(nightly)
    assert subjects(provenance(found)) == {found.digest}


@pytest.mark.parametrize("options", [(), ("--provenance",)])
def test_builder_elsewhere_and_an_engine_here(nightly: Nightly, options: tuple[str, ...]) -> None:
    """Broken: the image stays on the builder, or another image is verified."""
    done = nightly.builder("build", "--json", *CELL, *options, env={"BUILDX_BUILDER": "elsewhere"})
    assert done.returncode == 0, done.stderr
    (cell,) = json.loads(done.stdout)["cells"]
    assert cell["outcome"] == "verified"
    assert sorted(images_of(nightly.repository)) == sorted(tag.rpartition(":")[2] for tag in cell["tags"])
    pushed = nightly.builder("push", *CELL)
    assert pushed.returncode == 0, pushed.stderr


def test_builder_alone_and_no_push(nightly: Nightly) -> None:
    """Broken: images are built that nobody can use."""
    done = nightly.builder("build", *CELL, *ELSEWHERE, env=NO_ENGINE)
    assert (done.returncode, done.stdout) == (3, "")
    assert "does not answer" in done.stderr


@pytest.mark.parametrize("env", [{}, NO_ENGINE])
def test_unknown_builder(nightly: Nightly, env: Mapping[str, str]) -> None:
    """Broken: a mistyped builder is reported for each cell, or as an error of the engine."""
    done = nightly.builder("build", "--push", *CELL, "--builder", "no-such-builder", env=env)
    assert (done.returncode, done.stdout) == (3, "")
    assert "no-such-builder" in done.stderr
    assert "docker buildx ls" in done.stderr


def test_interrupted_while_the_builder_checks(nightly: Nightly, open_registry: Registry) -> None:
    """Broken: Ctrl-C leaves checks running on the builder, or pushes an image that did not pass."""
    nightly.env = {**nightly.env, **NO_ENGINE}
    process = nightly.start("build", "--push", "--progress=plain", *CELL, *ELSEWHERE)
    assert process.stderr
    for line in process.stderr:
        if "  verify  " in line:
            break
    interrupted = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert time.monotonic() - interrupted < 30
    assert set(standing(open_registry.host, nightly.repository.partition("/")[2]).values()) == {None}
