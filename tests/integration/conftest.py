"""A real engine, a real registry, the example project locked afresh, and its four images built once."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import certifi
import pytest
import trustme
from uv import find_uv_bin

from tests.shared import Shared

EXAMPLE = Path(__file__).parents[2] / "examples" / "webshop"


class Builder(Protocol):
    """Runs `builder` as a user would, and returns its exit code and output."""

    def __call__(
        self, *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run with these arguments in this folder; `env` adds to the environment, `prefix` goes before."""


def builder_argv(*arguments: str) -> list[str]:
    """The command line that starts builder with this interpreter."""
    return [sys.executable, "-m", "builder", *arguments]


@pytest.fixture(scope="session")
def builder() -> Builder:
    """The command line tool."""

    def run(
        *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, *builder_argv(*arguments)],
            cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


@pytest.fixture(scope="session", autouse=True)
def _own_cache(shared: Shared) -> Iterator[None]:
    """Let builder remember nothing from earlier test runs: which images were verified, above all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_CACHE_DIR", str(shared.top / "builder-cache"))
        yield


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Without an engine the tests marked `integration` mean nothing; the sandbox brings one."""
    if item.get_closest_marker("integration") and (said := _engine_fault()):
        pytest.exit(f"no Docker engine answers; run the tests with `make test`\n{said}", returncode=3)


@lru_cache(maxsize=1)
def _engine_fault() -> str:
    answer = subprocess.run(["docker", "version"], capture_output=True, text=True, check=False)
    return answer.stderr if answer.returncode else ""


@dataclass(frozen=True)
class Shop:
    """A locked copy of the example project, and the CA bundle for its builds: a real one and a canary."""

    folder: Path
    ca: Path
    canary: bytes

    @property
    def env(self) -> dict[str, str]:
        """What `builder` is started with for it."""
        return {"SSL_CERT_FILE": str(self.ca)}


@pytest.fixture(scope="session")
def shop(shared: Shared) -> Shop:
    """The example, locked now; tests that change it copy it first."""

    def make(top: Path) -> str:
        folder = top / "webshop"
        shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(".venv", "uv.lock", "__pycache__"))
        subprocess.run([find_uv_bin(), "lock", "--quiet"], cwd=folder, check=True)
        canary = trustme.CA(organization_name="canary").cert_pem.bytes()
        (top / "canary.pem").write_bytes(canary)
        trusted = Path(os.environ.get("SSL_CERT_FILE") or certifi.where()).read_bytes()
        (top / "ca.pem").write_bytes(trusted + b"\n" + canary)
        return str(top)

    top = Path(shared.once("shop", make))
    return Shop(folder=top / "webshop", ca=top / "ca.pem", canary=(top / "canary.pem").read_bytes())


@dataclass(frozen=True)
class Built:
    """The outcome of `builder build --json` for the example's four cells."""

    shop: Shop
    cells: tuple[dict[str, Any], ...]
    stderr: str

    def image(self, name: str) -> str:
        """The moving tag of a cell."""
        (tag,) = [cell["tags"][1] for cell in self.cells if cell["name"] == name]
        return str(tag)


@pytest.fixture(scope="session")
def built(shop: Shop, builder: Builder, shared: Shared) -> Built:
    """The four images of the example, built once for all workers."""

    def make(_: Path) -> dict[str, Any]:
        done = builder("build", "--lock", "uv.lock", "--json", cwd=shop.folder, env=shop.env)
        assert done.returncode == 0, done.stderr
        return {"cells": json.loads(done.stdout)["cells"], "stderr": done.stderr}

    made = shared.once("built", make)
    return Built(shop=shop, cells=tuple(made["cells"]), stderr=made["stderr"])


def docker(*arguments: str) -> str:
    """Run the docker command and return its output; fail the test if it fails."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def in_job(image: str, script: str, *, checkout: Path | None = None, options: Sequence[str] = ()) -> str:
    """Run a job's script on an image as a runner does: `sh -c`, a new volume below /builds; return its output."""
    volume = docker("volume", "create")
    try:
        mounts = ["-v", f"{volume}:/builds"]
        if checkout:
            copy = "cp -r /checkout /builds/project && chmod -R a+rwX /builds/project"
            given = (*mounts, "-v", f"{checkout}:/checkout:ro", "--network", "none", "--user", "0")
            docker("run", "--rm", *given, image, "sh", "-c", copy)
        where = ["-w", "/builds/project" if checkout else "/builds"]
        return docker("run", "--rm", *mounts, *where, *options, image, "sh", "-c", f"set -eu\n{script}")
    finally:
        docker("volume", "rm", "-f", volume)


def images_of(repository: str) -> list[str]:
    """The engine's tags of a repository."""
    return docker("image", "ls", "--format", "{{.Tag}}", repository).split()


def own_name(request: pytest.FixtureRequest) -> str:
    """A name for a repository that no other test has, nor the same one with other parameters."""
    words = f"{request.path.stem.removeprefix('test_')} {request.node.name.removeprefix('test_')}"
    return re.sub("[^a-z0-9]+", "-", words.lower()).strip("-")


@pytest.fixture
def scratch_repository(request: pytest.FixtureRequest) -> Iterator[str]:
    """A repository name of this test alone; its images are removed from the engine afterwards."""
    name = f"scratch.example/{own_name(request)}/ci"
    yield name
    for tag in images_of(name):
        docker("image", "rm", "--force", f"{name}:{tag}")


@contextlib.contextmanager
def second_engine(*, megabytes: int, containerd: bool = True) -> Iterator[str]:
    """A Docker engine of its own, empty, with so much disk and a bridge without a way out; yields its address.

    Its image store is containerd's, or else Docker's own older one.
    """
    if os.geteuid() or not shutil.which("dockerd"):
        pytest.skip("starting a second engine takes root and dockerd")
    folder = Path(tempfile.mkdtemp(prefix="engine-"))  # a short name: a socket's path has 107 characters at most
    disk = folder / "disk"
    disk.mkdir()
    address = f"unix://{disk}/docker.sock"
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(disk)], check=True)
    bridge = _new_bridge()
    (folder / "daemon.json").write_text(json.dumps({"features": {"containerd-snapshotter": containerd}}))
    argv = ["dockerd", "--data-root", f"{disk}/data", "--exec-root", f"{disk}/exec", "--pidfile", f"{disk}/pid"]
    argv += ["--host", address, "--bridge", bridge, "--iptables=false", "--config-file", str(folder / "daemon.json")]
    with (folder / "dockerd.log").open("w") as log, subprocess.Popen(argv, stdout=log, stderr=log) as engine:
        try:
            asked = ["docker", "--host", address, "version"]
            for _ in range(240):
                if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
                    break
                time.sleep(0.25)
            yield address
        finally:
            engine.terminate()
            engine.wait(timeout=60)
            subprocess.run(["umount", "--recursive", str(disk)], check=True)
            subprocess.run(["ip", "link", "delete", bridge], check=True)
            shutil.rmtree(folder)


def _new_bridge() -> str:
    """Add a bridge with a network of its own, whatever other tests and runs have now; return its name."""
    for number in range(200):
        name = f"builder-{number}"
        added = subprocess.run(["ip", "link", "add", name, "type", "bridge"], capture_output=True, check=False)
        if added.returncode == 0:
            subprocess.run(["ip", "address", "add", f"172.31.{number}.1/24", "dev", name], check=True)
            return name
    pytest.fail("`ip link add` adds no bridge")


def left_behind(image: str) -> list[str]:
    """Images with this name or repository whose verification left containers or volumes behind."""
    form = '{{.Label "io.gitlab.prebuilt.image"}}'
    marked = docker("ps", "--all", "--format", form).split() + docker("volume", "ls", "--format", form).split()
    return [each for each in marked if image in each]


def without_root_powers() -> list[str]:
    """A command prefix with which file permissions apply to root too."""
    if os.geteuid():
        return []
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]
