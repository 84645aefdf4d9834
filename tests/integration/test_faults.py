"""Faults around a build, each a real one: one clear error, the right exit code, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.verify.checks import CHECKS
from tests.integration.conftest import (
    Builder,
    Shop,
    builder_argv,
    docker,
    images_of,
    left_behind,
    second_engine,
    without_root_powers,
)

pytestmark = pytest.mark.integration

BASES = """
[bases.bookworm-slim]
image = "docker.io/library/python:{python}-slim-bookworm"
family = "debian"
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an empty lock, whose images build quickly."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "pylock.toml").write_text('lock-version = "1.0"\ncreated-by = "hand"\npackages = []\n')
    (folder / "matrix.toml").write_text(
        f'repository = "small.example/ci"\npython = ["3.13"]\nbase = ["bookworm-slim"]\n{BASES}'
    )
    return folder


def matrix(folder: Path, text: str) -> str:
    """Write a matrix next to the others and return its path."""
    path = folder / "other.toml"
    path.write_text(text)
    return str(path)


def test_one_cell_fails_and_the_others_go_on(
    small: Path, builder: Builder, tmp_path: Path, scratch_repository: str
) -> None:
    """Broken: a failed cell stops the others, or loses its own log."""
    text = f"""
repository = "{scratch_repository}"
python = ["3.13"]
base = ["bookworm-slim", "broken"]
{BASES}
[bases.broken]
image = "docker.io/library/python:{{python}}-slim-bookworm"
family = "debian"
packages = ["no-such-package-anywhere"]
"""
    done = builder("build", "-f", matrix(tmp_path, text), "--json", "--log-dir", str(tmp_path / "logs"), cwd=small)
    outcomes = {cell["name"]: cell for cell in json.loads(done.stdout)["cells"]}
    assert done.returncode == 1
    assert outcomes["3.13-bookworm-slim"]["outcome"] == "verified"
    assert outcomes["3.13-broken"]["outcome"] == "build-failed"
    assert "no-such-package-anywhere" in done.stderr
    (log,) = (tmp_path / "logs").glob("3.13-broken-*.log")
    assert str(log) in done.stderr
    assert "Unable to locate package" in log.read_text()
    assert [tag for tag in images_of(scratch_repository) if "broken" in tag] == []


def test_base_image_that_does_not_exist(small: Path, builder: Builder, tmp_path: Path) -> None:
    """Broken: the error for a mistyped base does not name it, or the mirror."""
    text = 'python = ["3.13"]\nbase = ["b"]\n[bases.b]\nlibc = "2.36"\nfamily = "debian"\n'
    text += 'image = "docker.io/library/python:{python}-no-such-suite"\n'
    done = builder("plan", "-f", matrix(tmp_path, text), cwd=small)
    assert (done.returncode, done.stdout) == (3, "")
    assert "docker.io/library/python:3.13-no-such-suite" in done.stderr
    if "docker.io=" in os.environ.get("BUILDER_MIRRORS", ""):
        assert "mirror: localhost:5000/library/python:3.13-no-such-suite" in done.stderr


def test_uv_version_that_does_not_exist(small: Path, builder: Builder, tmp_path: Path) -> None:
    """Broken: the error for an unreleased uv does not name it."""
    text = f'uv = "0.0.77"\npython = ["3.13"]\nbase = ["bookworm-slim"]\n{BASES}'
    done = builder("build", "-f", matrix(tmp_path, text), cwd=small)
    assert (done.returncode, done.stdout) == (3, "")
    assert "ghcr.io/astral-sh/uv:0.0.77" in done.stderr


def test_engine_not_running(small: Path, builder: Builder) -> None:
    """Broken: the error for a missing engine does not name its address."""
    host = "unix:///run/no-such-docker.sock"
    done = builder("build", cwd=small, env={"DOCKER_HOST": host})
    assert (done.returncode, done.stdout) == (3, "")
    assert host in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def closed_socket(tmp_path: Path) -> Iterator[Path]:
    """A socket that another process listens on and that this user cannot open."""
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0o600)
        if os.geteuid() == 0:
            os.chown(path, 54321, 54321)
        else:
            path.chmod(0)
        yield path


def test_engine_not_allowed(small: Path, builder: Builder, closed_socket: Path) -> None:
    """Broken: a user outside the docker group is told that the engine is down."""
    done = builder("build", cwd=small, env={"DOCKER_HOST": f"unix://{closed_socket}"}, prefix=without_root_powers())
    assert (done.returncode, done.stdout) == (3, "")
    assert "denies access to this user" in done.stderr
    assert str(closed_socket) in done.stderr


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo github.com/docker/buildx v0.9.1 0000000", "0.9 is too old"),
        ("echo \"docker: 'buildx' is not a docker command.\" >&2; exit 1", "has no buildx"),
    ],
)
def test_buildx_missing_or_too_old(small: Path, builder: Builder, tmp_path: Path, script: str, said: str) -> None:
    """Broken: the error for a wrong buildx does not name the required one, or comes after the first build."""
    fake = tmp_path / "docker"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    done = builder("build", cwd=small, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert (done.returncode, done.stdout) == (3, "")
    assert said in done.stderr


def test_no_docker_command(small: Path, builder: Builder, tmp_path: Path) -> None:
    """Broken: without the docker command, the error does not say what to install."""
    done = builder("build", cwd=small, env={"PATH": str(tmp_path)})
    assert (done.returncode, done.stdout) == (3, "")
    assert "no docker command" in done.stderr


@pytest.mark.parametrize(("name", "option"), [("matrix.toml", "-f"), ("pylock.toml", "--lock")])
def test_file_without_permission(small: Path, builder: Builder, tmp_path: Path, name: str, option: str) -> None:
    """Broken: a file that this user cannot read causes a traceback."""
    path = tmp_path / name
    path.write_text((small / name).read_text())
    path.chmod(0)
    if os.geteuid() == 0:
        os.chown(path, 54321, 54321)
    done = builder("plan", option, str(path), cwd=small, prefix=without_root_powers())
    assert (done.returncode, done.stdout) == (2, "")
    assert f"cannot read {path}: Permission denied" in done.stderr


def test_ca_bundle_that_is_not_there(small: Path, builder: Builder) -> None:
    """Broken: a wrong SSL_CERT_FILE is reported only after requests to the network."""
    done = builder("build", cwd=small, env={"SSL_CERT_FILE": "/no/such/ca.pem"})
    assert (done.returncode, done.stdout) == (2, "")
    assert "SSL_CERT_FILE names /no/such/ca.pem" in done.stderr


@pytest.mark.parametrize("moment", ["build   install", f"verify  checks 0/{len(CHECKS)}"])
def test_interruption_stops_everything(shop: Shop, tmp_path: Path, scratch_repository: str, moment: str) -> None:
    """Broken: Ctrl-C leaves builds, containers, volumes, processes or a moving tag behind."""
    text = (shop.folder / "matrix.toml").read_text()
    matrix(tmp_path, f'repository = "{scratch_repository}"\n{text}')
    argv = builder_argv("build", "-f", str(tmp_path / "other.toml"), "--progress", "plain")
    if moment.startswith("build"):
        argv.append("--no-cache")
    with subprocess.Popen(
        argv, cwd=shop.folder, env={**os.environ, **shop.env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if moment in line:
                break
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=120)
        elapsed = time.monotonic() - started
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert elapsed < 60
    assert left_behind(scratch_repository) == []
    cells = ["3.11-bookworm-slim", "3.11-alpine", "3.13-bookworm-slim", "3.13-alpine"]
    assert set(images_of(scratch_repository)).isdisjoint(cells)
    assert processes_with(scratch_repository) == []


def processes_with(text: str) -> list[str]:
    """Command lines of running processes that contain the text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in command and "docker" in command:
            found.append(command)
    return found


@pytest.fixture
def engine_with_little_disk() -> Iterator[str]:
    """A second Docker engine with a disk of 150 MB; yields its address."""
    with second_engine(megabytes=150) as address:
        yield address


def test_disk_full_while_building(small: Path, builder: Builder, engine_with_little_disk: str) -> None:
    """Broken: the error for a full disk does not say so, or what to do, or a tag is left."""
    done = builder("build", cwd=small, env={"DOCKER_HOST": engine_with_little_disk})
    assert (done.returncode, done.stdout) == (1, "")
    assert "no space left on device" in done.stderr
    assert "docker system df" in done.stderr


def test_no_moving_tag_for_an_image_that_fails(
    small: Path, builder: Builder, tmp_path: Path, scratch_repository: str
) -> None:
    """Broken: an image that failed verification gets a moving tag, or loses its immutable one."""
    # A base whose entry point swallows the job's script: nothing that a runner starts on it works.
    (tmp_path / "Dockerfile").write_text(f'FROM {stand_in("python:3.13-slim-bookworm")}\nENTRYPOINT ["/bin/false"]\n')
    base = "localhost:5000/broken/python:3.13-slim-bookworm"
    subprocess.run(["docker", "build", "--quiet", "--tag", base, str(tmp_path)], check=True, capture_output=True)
    docker("push", "--quiet", base)
    text = f'repository = "{scratch_repository}"\npython = ["3.13"]\nbase = ["b"]\n'
    text += f'[bases.b]\nimage = "{base.replace("3.13", "{python}")}"\nfamily = "debian"\n'
    done = builder("build", "-f", matrix(tmp_path, text), "--json", cwd=small)
    (cell,) = json.loads(done.stdout)["cells"]
    assert done.returncode == 1
    assert cell["outcome"] == "verify-failed"
    assert images_of(scratch_repository) == [f"3.13-b-{cell['key'][:12]}"]


def stand_in(name: str) -> str:
    """The reference under which this machine provides an image of Docker Hub's library."""
    mirrors = dict(pair.split("=") for pair in os.environ.get("BUILDER_MIRRORS", "").split(",") if pair)
    return f"{mirrors.get('docker.io', 'docker.io')}/library/{name}"
