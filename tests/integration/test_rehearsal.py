"""`builder run` and `builder shell` on the example's images."""

from __future__ import annotations

import os
import pty
import select
import time
from pathlib import Path

import pytest

from tests.integration.conftest import Builder, Built, builder_argv, docker
from tests.integration.gitlab import REGISTRY

pytestmark = pytest.mark.integration
CELL = ("--only", "python=3.11,base=bookworm-slim")


def test_job_on_an_image_here(built: Built, builder: Builder) -> None:
    """Broken: `builder run -- pytest` does not run the project's tests as a job, or leaves something behind."""
    folder = built.shop.folder
    before = sorted(folder.rglob("*"))
    done = builder("run", *CELL, "--no-network", "--user", "12345", "--", "pytest", "-q", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    script = 'echo "$CI $CI_PROJECT_DIR $PWD $WHO"; touch made; id -u; exit 7'
    done = builder("run", *CELL, "-q", "--no-sync", "-e", "WHO=me", script, cwd=folder)
    assert (done.returncode, done.stdout.split()) == (7, ["true", "/builds/project", "/builds/project", "me", "0"])
    assert sorted(folder.rglob("*")) == before
    assert docker("ps", "-aq", "--filter", "name=builder-run-") == ""


def test_job_without_an_engine(built: Built, builder: Builder, tmp_path: Path) -> None:
    """Broken: where no engine answers no job runs, or as somebody else, elsewhere, with a network; or leaves files."""
    if os.geteuid():
        pytest.skip("only root runs programs as other users without newuidmap")
    folder, image = built.shop.folder, f"{REGISTRY}/library/python:3.11-slim-bookworm"
    env = {"DOCKER_HOST": "unix:///nonexistent.sock", "BUILDER_CACHE_DIR": str(tmp_path)}
    run = ("run", *CELL, "--no-sync", "--image", image)
    script = "id -u; echo $PWD $CI $WHO; grep -c name pyproject.toml; touch made; cat; exit 7"
    done = builder(
        *run,
        "--user",
        "1234",
        "-e",
        "WHO=me",
        script,
        cwd=folder,
        env=env,
        prefix=("sh", "-c", 'echo typed | "$@"', "-"),
    )
    assert (done.returncode, done.stdout.split()[:4]) == (7, ["1234", "/builds/project", "true", "me"]), done.stderr
    assert done.stdout.endswith("\ntyped\n")
    assert "no Docker engine answers, so the registry's image is unpacked here" in done.stderr
    script = "import socket; socket.create_connection(('127.0.0.1', 5000))"
    offline = builder(*run, "--no-network", "--", "python", "-c", script, cwd=folder, env=env)
    assert "Connection refused" in offline.stderr
    assert list((tmp_path / "roots/runs").iterdir()) == []
    assert not (folder / "made").exists()


def test_shell_without_an_engine(built: Built, tmp_path: Path) -> None:
    """Broken: a shell without an engine has no terminal, ends at Ctrl-C, or takes the user's terminal with it."""
    if os.geteuid():
        pytest.skip("one way to run programs is enough here")
    image = f"{REGISTRY}/library/python:3.11-slim-bookworm"
    argv = builder_argv("shell", *CELL, "-q", "--image", image)
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(built.shop.folder)
        env = {"DOCKER_HOST": "unix:///nonexistent.sock", "BUILDER_CACHE_DIR": str(tmp_path)}
        os.execvpe(argv[0], argv, {**os.environ, **env})  # noqa: S606
    assert b"# " in _until(terminal, b"# ")
    os.write(terminal, b"sleep 100\n")
    time.sleep(1)
    os.write(terminal, b"\x03")
    os.write(terminal, b'echo still al""ive\n')
    assert b"still alive" in _until(terminal, b"still alive")
    os.write(terminal, b"exit 5\n")
    _until(terminal, b"nothing")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5


def _until(terminal: int, text: bytes) -> bytes:
    """What the terminal shows until it shows this, or until it is closed; within a minute."""
    shown, end = b"", time.monotonic() + 60
    while text not in shown and time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                shown += os.read(terminal, 65536)
            except OSError:
                break
    return shown


def test_job_without_engine_or_image(built: Built, builder: Builder) -> None:
    """Broken: without an engine, or without the image, there is a traceback, or nothing that says what to do."""
    folder, nowhere = built.shop.folder, {"DOCKER_HOST": "unix:///nonexistent.sock"}
    done = builder("run", *CELL, "true", cwd=folder, env=nowhere)
    assert done.returncode == 3
    assert (
        "no Docker engine answers, and webshop-ci:3.11-bookworm-slim is in no registry\n  start Docker" in done.stderr
    )
    for image, options, code, said in (
        (f"{REGISTRY}/none:1", (), 2, f"there is no image {REGISTRY}/none:1\n  `builder build --push` makes it"),
        (f"{REGISTRY}/library/python:3.11-slim-bookworm", ("--mount",), 3, "--mount takes a Docker engine, and none"),
    ):
        done = builder("run", *CELL, "--image", image, *options, "true", cwd=folder, env=nowhere)
        assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    done = builder("shell", "--image", "localhost:1/none:1", cwd=folder)
    assert done.returncode == 2
    assert "there is no image localhost:1/none:1\n  `builder build` makes it" in done.stderr
