"""The pipelines that teams have today, and the same on baked images: `examples/gitlab`, run for real."""

from __future__ import annotations

import difflib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import Builder, docker, images_of, own_name
from tests.integration.gitlab import REGISTRY, add_public_images, run_pipeline, runner_volume, runs_pipelines
from tests.integration.pairs import PAIRS, PUBLIC_IMAGES, lock_of, locked, take
from tests.shared import Shared

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


@dataclass(frozen=True)
class Projects:
    """A copy of each project for one test, locked once in the run."""

    shared: Shared
    folder: Path

    def __getitem__(self, name: str) -> Path:
        made = self.shared.once(f"pair-{name}", lambda top: str(locked(name, top)))
        return Path(shutil.copytree(made, self.folder / name))


@pytest.fixture
def projects(shared: Shared, tmp_path: Path) -> Projects:
    """The projects."""
    return Projects(shared, tmp_path)


@pytest.fixture(scope="session")
def public(shared: Shared) -> None:
    """The images that the pipelines of today start from, until all workers are done."""

    def make(_: Path) -> list[str]:
        added = add_public_images(*PUBLIC_IMAGES)
        for name in added:
            shared.at_the_end("docker", "image", "rm", name)
        return added

    shared.once("public-images", make)


@pytest.fixture
def registry_image(request: pytest.FixtureRequest) -> Iterator[str]:
    """What GitLab would set CI_REGISTRY_IMAGE to; the images under it are removed from the engine afterwards."""
    name = f"{REGISTRY}/{own_name(request)}"
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
def test_pip_with_a_cached_environment_runs_today(projects: Projects) -> None:
    """What the bench compares with is a pipeline that works: a job fills the cache, another one finds it."""
    folder = projects["pip-cache-and-venv"]
    take(folder, "before")
    ran = run_pipeline(folder, "init", "test")  # the other two do as test does
    assert ran.exit_code == 0, ran.text
    assert "Successfully installed" in ran["init"].output
    assert "imported cache" in ran.text
    assert "Successfully installed" not in ran["test"].output


@pytest.mark.usefixtures("public")
def test_pip_on_a_long_lived_machine_runs_today(projects: Projects) -> None:
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
def test_uv_with_a_cache_runs_today(projects: Projects) -> None:
    """What the bench compares with is a pipeline that works; `uv cache prune --ci` leaves its cache next to empty."""
    folder = projects["uv-cache"]
    take(folder, "before")
    ran = run_pipeline(folder)
    assert ran.exit_code == 0, ran.text
    assert [job.name for job in ran.jobs] == ["lint", "test"]
    assert " + pandas==" in ran["test"].output


@pytest.mark.usefixtures("public")
def test_what_one_job_installs_the_next_one_lacks(projects: Projects) -> None:
    """The pair shows a pipeline that fails today: a job's container takes with it what was installed in it."""
    folder = projects["uv-system-python"]
    take(folder, "before")
    ran = run_pipeline(folder)
    assert ran.exit_code == 1
    assert ran["install"].passed
    assert not ran["check"].passed
    assert "Package(s) not found for: rdflib" in ran["check"].output


@pytest.mark.parametrize("name", NAMES)
def test_baked_image_has_everything(name: str, projects: Projects, builder: Builder, registry_image: str) -> None:
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
