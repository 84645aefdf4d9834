"""The pipelines that teams have today, and the same on baked images: `examples/gitlab`, run for real."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import Builder, docker, images_of
from tests.integration.gitlab import REGISTRY, public_images, run_pipeline, runner_volume, runs_pipelines
from tests.integration.pairs import PAIRS, PUBLIC_IMAGES, lock_of, locked, take

pytestmark = [pytest.mark.integration, runs_pipelines]

NAMES = sorted(folder.name for folder in PAIRS.iterdir() if folder.is_dir())
NO_NETWORK = ("--network", "none")

# What a team takes out of its file, and what it puts in.
TAKEN = re.compile(
    r" *image: .*"
    r"| *cache:| *(- )?key:( .*)?| *files:| *paths:| *- (uv\.lock|\.cache/pip|venv/|\$UV_CACHE_DIR)"
    r"| *(PIP_CACHE_DIR|UV_CACHE_DIR|UV_LINK_MODE|UV_VERSION): .*"
    r"| *- (python -m venv venv|source venv/bin/activate|uv cache prune --ci)"
)
PUT = re.compile(r" *image: \$CI_REGISTRY_IMAGE/ci:\S+")


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A locked copy of each project."""
    top = tmp_path_factory.mktemp("pairs")
    return {name: locked(name, top) for name in NAMES}


@pytest.fixture(scope="module")
def public() -> Iterator[None]:
    """The images that the pipelines of today start from."""
    with public_images(*PUBLIC_IMAGES):
        yield


@pytest.fixture
def registry_image(tmp_path: Path) -> Iterator[str]:
    """What GitLab would set CI_REGISTRY_IMAGE to; the images under it are removed from the engine afterwards."""
    name = f"{REGISTRY}/{tmp_path.name.replace('_', '-').lower()}"
    yield name
    for tag in images_of(f"{name}/ci"):
        docker("image", "rm", "--force", f"{name}/ci:{tag}")


@pytest.mark.parametrize("name", NAMES)
def test_only_image_and_caches_differ(name: str) -> None:
    """Whoever moves to a baked image must not have to change anything else."""
    before, after = ((PAIRS / name / f"{which}.gitlab-ci.yml").read_text() for which in ("before", "after"))
    lines = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "-+"]
    assert [line for line in lines if not (TAKEN if line[0] == "-" else PUT).fullmatch(line[2:])] == []
    assert [line for line in lines if line[0] == "+"]


@pytest.mark.usefixtures("public")
def test_pip_with_a_cached_environment_runs_today(projects: dict[str, Path]) -> None:
    """What the bench compares with is a pipeline that works: a job fills the cache, another one finds it."""
    take(projects["pip-cache-and-venv"], "before")
    ran = run_pipeline(projects["pip-cache-and-venv"], "init", "test")  # the other two do as test does
    assert ran.exit_code == 0, ran.text
    assert "Successfully installed" in ran["init"].output
    assert "imported cache" in ran.text
    assert "Successfully installed" not in ran["test"].output


@pytest.mark.usefixtures("public")
def test_pip_on_a_long_lived_machine_runs_today(projects: dict[str, Path]) -> None:
    """What is compared with is a runner whose volume outlives the jobs, and pip keeps what it may in it.

    That are downloads only where the index sends the headers that let pip keep them, as PyPI does and mirrors may not.
    """
    folder = projects["pip-on-a-long-lived-machine"]
    take(folder, "before")
    with runner_volume() as cache:
        ran = run_pipeline(folder, volumes={cache: "/cache"})
        kept = docker(
            "run", "--rm", "--volume", f"{cache}:/cache", PUBLIC_IMAGES[0], "find", "/cache/pip", "-type", "f"
        )
    assert ran.exit_code == 0, ran.text
    assert {job.name for job in ran.jobs} == {"lint", "test"}
    assert kept


@pytest.mark.usefixtures("public")
def test_uv_with_a_cache_runs_today(projects: dict[str, Path]) -> None:
    """What the bench compares with is a pipeline that works; `uv cache prune --ci` leaves its cache next to empty."""
    take(projects["uv-cache"], "before")
    ran = run_pipeline(projects["uv-cache"])
    assert ran.exit_code == 0, ran.text
    assert [job.name for job in ran.jobs] == ["lint", "test"]
    assert " + pandas==" in ran["test"].output


@pytest.mark.usefixtures("public")
def test_what_one_job_installs_the_next_one_lacks(projects: dict[str, Path]) -> None:
    """The pair shows a pipeline that fails today: a job's container takes with it what was installed in it."""
    take(projects["uv-system-python"], "before")
    ran = run_pipeline(projects["uv-system-python"])
    assert ran.exit_code == 1
    assert ran["install"].passed
    assert not ran["check"].passed
    assert "Package(s) not found for: rdflib" in ran["check"].output


@pytest.mark.parametrize("name", NAMES)
def test_baked_image_has_everything(
    name: str, projects: dict[str, Path], builder: Builder, registry_image: str
) -> None:
    """On the image that builder makes of the project's lock all jobs pass, and none of them needs a network."""
    folder = projects[name]
    env = {"CI_REGISTRY_IMAGE": registry_image}
    done = builder("build", "--lock", lock_of(folder), cwd=folder, env=env)
    assert done.returncode == 0, done.stderr
    take(folder, "after")
    ran = run_pipeline(folder, variables=env, options=NO_NETWORK)
    assert ran.exit_code == 0, ran.text
    assert {job.image for job in ran.jobs} == set(done.stdout.split())
    assert all(job.passed for job in ran.jobs)
    assert not re.search(r"Successfully installed|Downloading|Prepared|^\S+ +> +\+ ", ran.text, re.MULTILINE)
