"""Images without an engine: made, verified and pushed in a container that has no socket and no privileges."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Builder, builder_argv, docker, own_name
from tests.integration.faults import Answer, between
from tests.integration.nightly import standing
from tests.integration.registries import Registry, an_open_registry
from tests.integration.shelf import Project, Shelf, open_shelf
from tests.integration.test_faults import stand_in
from tests.integration.test_publish import NO_ENGINE

pytestmark = pytest.mark.integration

__all__ = ["an_open_registry"]

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
# What Docker gives a container, in the order of capabilities(7): SYS_CHROOT among them, SYS_ADMIN not.
CAPABILITIES = "CapEff:\t00000000a80425fb"
LIMIT = "this machine allows no network namespace"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """The packages."""
    with open_shelf(tmp_path_factory.mktemp("shelf")) as opened:
        yield opened


@pytest.fixture
def project(open_registry: Registry, shelf: Shelf, tmp_path: Path, request: pytest.FixtureRequest) -> Project:
    """A project with a wheel, and a repository and a cache of its own."""
    env = {**NO_ENGINE, "BUILDER_CACHE_DIR": str(tmp_path / "cache")}
    folder = tmp_path / "project"
    folder.mkdir()
    made = Project(folder=folder, repository=f"{open_registry.host}/{own_name(request)}", env=env)
    made.one_cell()
    made.packages(shelf.wheel("plain"))
    return made


def in_container(project: Project, script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a script beside the project in a container with this interpreter's builder, as an ordinary CI job."""
    if f"{VERSION}-slim-bookworm" not in os.environ["SANDBOX_PYTHONS"].split():
        pytest.skip(f"there is no image with Python {VERSION}")
    paths = [path for path in sys.path if path.endswith("site-packages")]
    code = Path(__file__).parents[2]
    mounts = [f"{code}:{code}:ro", *(f"{path}:{path}:ro" for path in paths), f"{project.folder}:/project"]
    env = {"PYTHONPATH": ":".join([str(code), *paths]), "PYTHONDONTWRITEBYTECODE": "1"}
    env["BUILDER_MIRRORS"] = os.environ.get("BUILDER_MIRRORS", "")
    if trusted := os.environ.get("SSL_CERT_FILE"):
        mounts, env["SSL_CERT_FILE"] = [*mounts, f"{Path(trusted).resolve()}:/ca.pem:ro"], "/ca.pem"
    argv = ["docker", "run", "--rm", "--network", "host", "--workdir", "/project", *options]
    argv += [word for mount in mounts for word in ("--volume", mount)]
    argv += [word for name, value in env.items() for word in ("--env", f"{name}={value}")]
    argv += [stand_in(f"python:{VERSION}-slim-bookworm"), "sh", "-euc", script]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def cell_of(printed: str) -> dict[str, Any]:
    """The only cell of a JSON result."""
    (cell,) = json.loads(printed)["cells"]
    return dict(cell)


def verdicts(cell: Mapping[str, Any]) -> dict[str, str]:
    """The verdict of each check."""
    return {check["name"]: check["verdict"] for check in cell["checks"]}


def test_ordinary_container(project: Project, shelf: Shelf, builder: Builder, open_registry: Registry) -> None:
    """Broken: a CI job without privileges cannot make images, or makes such that fail on a real engine."""
    path = project.folder / "matrix.toml"
    path.write_text(path.read_text() + 'packages = ["netcat-openbsd"]\n')
    project.packages(shelf.wheel("plain"), shelf.wheel("large", size=700_000), shelf.sdist("sourced"))
    script = (
        "test ! -e /var/run/docker.sock; if command -v docker; then exit 9; fi; grep CapEff /proc/self/status >&2\n"
        "python3 -m builder build --push --json\n"
        'test -z "$(ls -A ~/.cache/builder/roots/runs)"; test ! -e /run/secrets; test ! -e /builder-layers'
    )
    done = in_container(project, script)
    assert done.returncode == 0, done.stderr
    assert CAPABILITIES in done.stderr
    cell = cell_of(done.stdout)
    assert (cell["outcome"], set(verdicts(cell).values())) == ("pushed", {"passed", "skipped"})
    assert LIMIT in next(check["evidence"] for check in cell["checks"] if check["name"] == "second-environment")
    tags = [tag.rpartition(":")[2] for tag in cell["tags"]]
    found = standing(open_registry.host, project.repository.partition("/")[2], tags)
    assert found == dict.fromkeys(tags, cell["digest"])
    image = cell["tags"][1]
    docker("pull", "--quiet", image)
    try:
        docker("run", "--rm", image, "sh", "-euc", "command -v nc; python -c 'import sourced'")
        verified = builder("verify", image, cwd=project.folder)
        assert verified.returncode == 0, verified.stdout
    finally:
        docker("image", "rm", "--force", image)


def test_no_rights(project: Project) -> None:
    """Broken: where neither chroot nor namespaces are allowed, a job fails without saying what to do."""
    done = in_container(project, "python3 -m builder build --push --maker native", "--cap-drop", "ALL")
    assert (done.returncode, done.stdout) == (3, "")
    assert "no program of an image can be run on this machine: chroot: not allowed" in done.stderr
    assert "--builder" in done.stderr


def test_ordinary_user(project: Project) -> None:
    """Broken: a user without root and without an engine cannot push an image, or checks that were not made pass."""
    options = ["--user", "1000:1000", "--security-opt", "seccomp=unconfined", "--env", "HOME=/tmp"]
    for path in (project.folder, *project.folder.iterdir()):
        path.chmod(0o777)
    done = in_container(project, "python3 -m builder build --push --json", *options)
    assert done.returncode == 0, done.stderr
    cell = cell_of(done.stdout)
    assert cell["outcome"] == "pushed"
    assert {name for name, verdict in verdicts(cell).items() if verdict == "skipped"} >= {"any-user"}
    assert {verdicts(cell)[name] for name in ("second-environment", "installed-set", "bytecode")} == {"passed"}


def test_system_packages_of_an_ordinary_user(project: Project) -> None:
    """Broken: files that belong to others get the wrong owner, in a layer that all images with its key have."""
    path = project.folder / "matrix.toml"
    path.write_text(path.read_text() + 'packages = ["netcat-openbsd"]\n')
    options = ["--user", "1000:1000", "--security-opt", "seccomp=unconfined", "--env", "HOME=/tmp"]
    done = in_container(project, "python3 -m builder build --push", *options)
    assert (done.returncode, done.stdout) == (3, "")
    assert "newuidmap" in done.stderr


def test_base_without_python(project: Project) -> None:
    """Broken: a base image without Python is reported as something else."""
    uv = "ghcr.io/astral-sh/uv:0.13.8"
    path = project.folder / "matrix.toml"
    text = path.read_text().replace("docker.io/library/python:{python}-slim-bookworm", uv)
    path.write_text(f'{text}libc = "2.36"\n')
    done = project.builder("build", "--push", "--maker", "native")
    assert (done.returncode, done.stdout) == (1, "")
    assert "3.13-slim: " in done.stderr
    assert "cannot start python3: No such file or directory" in done.stderr


@pytest.mark.skipif(os.environ.get("SANDBOX_STAND_INS") != "1", reason="the mirror is not the sandbox's registry")
def test_base_with_other_bytes(project: Project) -> None:
    """Broken: a layer of the base that has other bytes than its digest says is unpacked, or half of it is kept."""
    with between(os.environ["SANDBOX_REGISTRY"]) as proxy:
        env = {"BUILDER_MIRRORS": f"docker.io={proxy.host},ghcr.io={proxy.host}"}
        planned = project.builder("plan", env=env)  # fetches manifest and config
        assert planned.returncode == 0, planned.stderr
        proxy.on("GET", "/library/python/blobs/", Answer(status=200, body=b"other bytes"), times=None)
        done = project.builder("build", "--push", "--maker", "native", env=env)
    assert (done.returncode, done.stdout) == (3, "")
    assert "sent other content for sha256:" in done.stderr
    kept = Path(project.env["BUILDER_CACHE_DIR"]) / "roots" / "kept"
    assert [path for path in kept.iterdir() if path.is_dir()] == []


def test_other_architecture(project: Project) -> None:
    """Broken: layers of this machine's architecture get into images of another one."""
    done = project.builder("build", "--push", "--maker", "native", "--platform", "linux/arm64")
    assert done.returncode in {1, 3}
    assert "linux/arm64" in done.stderr
    assert done.stdout == ""


def test_maker_and_options_that_contradict(project: Project) -> None:
    """Broken: --maker native is ignored where an option needs BuildKit."""
    for option in (["--sbom"], ["--builder", "elsewhere"]):
        done = project.builder("build", "--push", "--maker", "native", *option)
        assert (done.returncode, done.stdout) == (2, "")
        assert "--maker native" in done.stderr


def test_interrupted(project: Project) -> None:
    """Broken: Ctrl-C leaves processes, mounts or half-made folders behind."""
    process = subprocess.Popen(
        builder_argv("build", "--push", "--maker", "native", "--progress", "plain"), cwd=project.folder,
        env={**os.environ, **project.env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr
    for line in process.stderr:
        if "compile the standard library" in line:
            break
    process.send_signal(2)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    roots = Path(project.env["BUILDER_CACHE_DIR"]) / "roots"
    assert list((roots / "runs").iterdir()) == []
    assert not [path for path in (roots / "kept").iterdir() if path.name.startswith(".")]
    assert str(roots) not in Path("/proc/self/mountinfo").read_text()
