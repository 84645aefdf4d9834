"""`builder run` and `builder shell` on the example's images."""

from __future__ import annotations

import pytest

from tests.integration.conftest import Builder, Built, docker

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


def test_job_without_engine_or_image(built: Built, builder: Builder) -> None:
    """Broken: without an engine, or without the image, there is a traceback, or nothing that says what to do."""
    folder = built.shop.folder
    done = builder("run", *CELL, "true", cwd=folder, env={"DOCKER_HOST": "unix:///nonexistent.sock"})
    assert done.returncode == 3
    assert "no Docker engine answers, and a job needs one here\n  start Docker, or name an engine" in done.stderr
    done = builder("shell", "--image", "localhost:1/none:1", cwd=folder)
    assert done.returncode == 2
    assert "there is no image localhost:1/none:1\n  `builder build` makes it" in done.stderr
