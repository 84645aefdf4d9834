"""The project's own `.gitlab-ci.yml`, on images that the checkout builds for itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Builder, docker
from tests.integration.gitlab import REGISTRY, REMOTE, ContainerExit, public_images, run_pipeline, runs_pipelines
from tests.integration.registries import Registry, a_guarded_registry
from tests.integration.server import Answer, serving

ROOT = Path(__file__).parents[2]
PROJECT = f"{REGISTRY}/acme/builder"
__all__ = ["a_guarded_registry"]

TAG = "99.1.0"  # no release that the clone may already have
PYTHONS = ("3.11", "3.13")
# Of the others, those whose public image there is: the sandbox has a stand-in for 3.12 at most.
OTHERS = [
    python
    for python in ("3.10", "3.12", "3.14")
    if f"{python}-slim-bookworm" in os.environ.get("SANDBOX_PYTHONS", "").split()
]
NOTES = "- Everything, at last."

pytestmark = [pytest.mark.integration, runs_pipelines]

# A runner whose jobs have the engine's socket, as .gitlab-ci.yml says how to set it up.
_SOCKET = {"DOCKER_HOST": "unix:///var/run/docker.sock", "DOCKER_TLS_VERIFY": "", "DOCKER_CERT_PATH": ""}
_SURROUNDINGS = ("BUILDER_MIRRORS", "SANDBOX_REGISTRY", "SANDBOX_STAND_INS", "SANDBOX_PYTHONS")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, builder: Builder) -> Path:
    """A clean clone of the commit, on the default branch, with its images in the registry."""
    folder = tmp_path_factory.mktemp("own") / "builder"
    subprocess.run(["git", "clone", "--quiet", ROOT.as_uri(), str(folder)], check=True)
    _git(folder, "checkout", "--quiet", "-B", "main")
    _git(folder, "remote", "set-url", "origin", REMOTE)
    # gitlab-ci-local merges it over the other; it has no services on the host's network, where the registry is.
    override: dict[str, Any] = {job: {"services": []} for job in (".engine", ".prebuilt-job")}
    override["unit-others"] = (
        {"parallel": {"matrix": [{"PYTHON": OTHERS}]}} if OTHERS else {"rules": [{"when": "never"}]}
    )
    (folder / ".gitlab-ci-local.yml").write_text(json.dumps(override))  # JSON is YAML
    _git(folder, "add", "--all")  # committed: a release is made of a clean tree
    _git(folder, "commit", "--quiet", "--message=No services")
    _git(folder, "update-ref", "refs/remotes/origin/main", "HEAD")
    _git(folder, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main")
    baked = builder("build", "--push", "--lock", "requirements-dev.txt", cwd=folder, env={"CI_REGISTRY_IMAGE": PROJECT})
    assert baked.returncode == 0, baked.stderr
    for python in PYTHONS:  # the engine may have an older one under this name
        docker("pull", "--quiet", f"{PROJECT}/ci:{python}-trixie-slim")
    return folder


def _git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Acme", "-c", "user.email=acme@example.com"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True)


def _run(folder: Path, *jobs: str, **variables: str) -> ContainerExit:
    surroundings = {name: os.environ[name] for name in _SURROUNDINGS if name in os.environ}
    return run_pipeline(
        folder, *jobs,
        variables={"CI_REGISTRY_IMAGE": PROJECT, **_SOCKET, **surroundings, **variables},
        volumes={"/var/run/docker.sock": "/var/run/docker.sock"},
        options=["--network", "host"],
    )  # fmt: skip


def test_scheduled_pipeline(clone: Path) -> None:
    """Broken: this project's rebuild, lint or test jobs do not run on its own images."""
    one = "tests/integration/test_faults.py::test_one_cell_fails_and_the_others_go_on"
    with public_images(*(f"docker.io/library/python:{python}-slim-bookworm" for python in OTHERS)):
        # `make test-unit` runs all unit tests on these Pythons.
        ran = _run(clone, CI_PIPELINE_SOURCE="schedule", TESTS=one, UNIT_TESTS="tests/unit/test_display.py")
    assert ran.exit_code == 0, ran.text
    passed = {job.name for job in ran.jobs if job.passed}
    units = {f"unit: [{python}]" for python in PYTHONS} | {f"unit-others: [{python}]" for python in OTHERS}
    assert passed == {"prebuilt", "lint", *units, "integration"}
    assert "up to date" in ran["prebuilt"].output
    for python in PYTHONS:
        assert ran[f"unit: [{python}]"].image == f"{PROJECT}/ci:{python}-trixie-slim"
    assert "1 passed" in ran["integration"].output
    assert not (clone / ".venv").exists()


def test_first_pipeline_of_a_fork(clone: Path) -> None:
    """Broken: a fork, which has no images yet, cannot build them with the job for that."""
    with public_images("docker.io/library/python:3.13-slim-trixie"):
        ran = _run(clone, "bootstrap")
    assert ran["bootstrap"].passed, ran.text
    assert f"{PROJECT}/ci:3.13-trixie-slim" in ran["bootstrap"].output


@pytest.fixture(scope="module")
def tagged(clone: Path) -> Path:
    """The clone with the version's tag, and a changelog section for it."""
    changelog = clone / "CHANGELOG.md"
    text = changelog.read_text(encoding="utf-8")
    changelog.write_text(text.replace("## ", f"## {TAG} (2026-01-31)\n\n{NOTES}\n\n## ", 1), encoding="utf-8")
    _git(clone, "commit", "--quiet", "--all", "--message=Release")
    _git(clone, "tag", TAG)
    return clone


@pytest.fixture(scope="module")
def packaged(tagged: Path) -> Path:
    """The clone after the release's first job, with its artifacts."""
    ran = _run(tagged, "package", CI_COMMIT_TAG=TAG)
    assert ran["package"].passed, ran.text
    return tagged


def test_release_is_packaged(packaged: Path) -> None:
    """Broken: a tag's sdist and wheel are not built from the image alone, or its notes are another release's."""
    names = {path.name for path in (packaged / "dist").glob("prebuilt*")}
    assert names == {f"prebuilt-{TAG}.tar.gz", f"prebuilt-{TAG}-py3-none-any.whl"}
    assert (packaged / "notes.md").read_text(encoding="utf-8").strip() == NOTES


@pytest.mark.parametrize(
    ("tag", "heading", "said"),
    [
        ("99.0.0", "## 99.0.0", "the tag is 99.0.0, but the package's version is 99.1."),
        (TAG, "## 0.0.1", f"CHANGELOG.md has no text under '## {TAG}'"),
    ],
    ids=["tag", "changelog"],
)
def test_release_that_contradicts_itself_is_refused(
    tagged: Path, tmp_path: Path, tag: str, heading: str, said: str
) -> None:
    """Broken: a release has a version other than its package's, or no notes."""
    folder = tmp_path / "builder"
    shutil.copytree(tagged, folder, ignore=shutil.ignore_patterns(".gitlab-ci-local", "dist"))
    changelog = folder / "CHANGELOG.md"
    changelog.write_text(changelog.read_text(encoding="utf-8").replace(f"## {TAG}", heading), encoding="utf-8")
    ran = _run(folder, "package", CI_COMMIT_TAG=tag)
    assert not ran["package"].passed
    assert said in ran["package"].output


def test_wheel_is_uploaded(packaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a release does not reach the project's package registry with the job's own token."""
    login = b64encode(b"gitlab-ci-token:of the job").decode()

    with serving(lambda _: Answer(status=201), monkeypatch) as gitlab:
        api = f"http://{gitlab.host}/api/v4"
        ran = _run(
            packaged, "upload", CI_COMMIT_TAG=TAG, CI_API_V4_URL=api, CI_PROJECT_ID="7", CI_JOB_TOKEN="of the job"
        )
    assert ran["upload"].passed, ran.text
    assert {(each.method, each.path) for each in gitlab.requests} == {("POST", "/api/v4/projects/7/packages/pypi")}
    assert {each.headers["authorization"] for each in gitlab.requests} == {f"Basic {login}"}
    for path in (packaged / "dist").glob("prebuilt-*"):
        assert any(path.read_bytes() in each.body for each in gitlab.requests)


@pytest.fixture
def beside(guarded_registry: Registry) -> Iterator[str]:
    """The project's images in a registry with a password, where the engine has the image that jobs run on."""
    project = f"{guarded_registry.host}/acme/builder"
    docker("tag", f"{PROJECT}/ci:3.13-trixie-slim", f"{project}/ci:3.13-trixie-slim")
    yield project
    docker("image", "rm", "--force", f"{project}/ci:3.13-trixie-slim", f"{project}/cli:{TAG}")


def test_image_of_the_command_line_tool(
    packaged: Path, beside: str, guarded_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken: the image for the component's jobs is not published, or lacks a program."""
    ran = _run(
        packaged, "cli", CI_COMMIT_TAG=TAG, CI_REGISTRY_IMAGE=beside, CI_REGISTRY=guarded_registry.host,
        CI_REGISTRY_USER=guarded_registry.user, CI_REGISTRY_PASSWORD=guarded_registry.password,
    )  # fmt: skip
    assert ran["cli"].passed, ran.text
    monkeypatch.setenv("DOCKER_CONFIG", str(guarded_registry.docker_config(tmp_path)))
    script = "set -e; builder --version; docker buildx version; git --version; uv --version; pip list"
    said = docker("run", "--rm", "--pull=always", f"{beside}/cli:{TAG}", "sh", "-c", script)
    assert said.startswith(f"builder, version {TAG}")
    assert "pytest" not in said
