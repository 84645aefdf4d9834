"""The pipelines in `examples/gitlab`, before and after the move to baked images, run with gitlab-ci-local."""

from __future__ import annotations

import difflib
import os
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
# The stand-ins have a perl of Debian's security archive, and not that archive: apt finds no git that fits it.
needs_git = pytest.mark.skipif(os.environ.get("SANDBOX_STAND_INS") == "1", reason="stand-ins cannot install git")
RUNS = [pytest.param(name, marks=[needs_git] if name == "pre-commit" else []) for name in NAMES]
# They make environments of their own, for which uv and pip ask the index about versions, even if they download nothing.
ASK_THE_INDEX = {"nox", "tox"}

# Lines that a team removes from its file, and lines that it adds.
REMOVED = re.compile(
    r" *image: .*"
    r"| *- (pip install tox|nox -s \w+)"
    r"|| *variables:| *cache:| *(- )?key:( .*)?| *files:| *paths:"
    r"| *- (uv\.lock|poetry\.lock|\.cache/pip|\.?venv/|\$UV_CACHE_DIR)"
    r"| *(PIP_CACHE_DIR|UV_CACHE_DIR|UV_LINK_MODE|UV_VERSION): .*"
    r"| *- (python -m venv venv|source venv/bin/activate|uv cache prune --ci)"
)
ADDED = re.compile(r" *image: \$CI_REGISTRY_IMAGE/ci:\S+| *- (pip install tox tox-uv-bare|nox -db uv -s \w+)")


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
    """The public images that the pipelines use before the move, until all workers are done."""

    def make(_: Path) -> list[str]:
        added = add_public_images(*PUBLIC_IMAGES)
        for name in added:
            shared.at_the_end("docker", "image", "rm", name)
        return added

    shared.once("public-images", make)


@pytest.fixture
def registry_image(request: pytest.FixtureRequest) -> Iterator[str]:
    """The value of CI_REGISTRY_IMAGE; its images are removed from the engine afterwards."""
    name = f"{REGISTRY}/{own_name(request)}"
    yield name
    for tag in images_of(f"{name}/ci"):
        docker("image", "rm", "--force", f"{name}/ci:{tag}")


@pytest.mark.parametrize("name", NAMES)
def test_only_image_and_caches_differ(name: str) -> None:
    """Broken: moving to a baked image changes more than the image and the caches."""
    before, after = ((PAIRS / name / f"{which}.gitlab-ci.yml").read_text() for which in ("before", "after"))
    lines = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "-+"]
    assert [line for line in lines if not (REMOVED if line[0] == "-" else ADDED).fullmatch(line[2:])] == []
    assert [line for line in lines if line[0] == "+"]


@pytest.mark.usefixtures("public")
def test_pip_with_a_cached_environment_before(projects: Projects) -> None:
    """Broken: the benchmark compares with a pipeline that fails, or whose second job does not use the cache."""
    folder = projects["pip-cache-and-venv"]
    take(folder, "before")
    ran = run_pipeline(folder, "init", "test")  # the other two work like test
    assert ran.exit_code == 0, ran.text
    assert "Successfully installed" in ran["init"].output
    assert "imported cache" in ran.text
    assert "Successfully installed" not in ran["test"].output


@pytest.mark.usefixtures("public")
def test_pip_on_a_long_lived_machine_before(projects: Projects) -> None:
    """Broken: the benchmark compares with a pipeline that fails, or where pip's cache does not outlive the jobs.

    Downloads are in the cache only if the headers of the index allow it.
    """
    folder = projects["pip-on-a-long-lived-machine"]
    take(folder, "before")
    with runner_volume() as cache:
        ran = run_pipeline(folder, volumes={cache: "/cache"})
        cached = docker(
            "run", "--rm", "--volume", f"{cache}:/cache", PUBLIC_IMAGES[0], "find", "/cache/pip", "-type", "f"
        )
    assert ran.exit_code == 0, ran.text
    assert {job.name for job in ran.jobs} == {"lint", "test"}
    assert cached


@pytest.mark.usefixtures("public")
def test_uv_with_a_cache_before(projects: Projects) -> None:
    """Broken: the benchmark compares with a pipeline that fails, or that has nothing to install."""
    folder = projects["uv-cache"]
    take(folder, "before")
    ran = run_pipeline(folder)
    assert ran.exit_code == 0, ran.text
    assert [job.name for job in ran.jobs] == ["lint", "test"]
    assert " + pandas==" in ran["test"].output


@pytest.mark.usefixtures("public")
def test_packages_do_not_outlive_their_job_before(projects: Projects) -> None:
    """Broken: the example of a pipeline that fails without a baked image does not fail."""
    folder = projects["uv-system-python"]
    take(folder, "before")
    ran = run_pipeline(folder)
    assert ran.exit_code == 1
    assert ran["install"].passed
    assert not ran["check"].passed
    assert "Package(s) not found for: rdflib" in ran["check"].output


@pytest.mark.usefixtures("public")
@pytest.mark.parametrize("name", ["nox", "poetry", pytest.param("pre-commit", marks=needs_git), "tox"])
def test_environments_of_their_own_before(name: str, projects: Projects) -> None:
    """Broken: the example shows a pipeline that fails, or that does not fill its environments by pip."""
    folder = projects[name]
    take(folder, "before")
    ran = run_pipeline(folder)
    assert ran.exit_code == 0, ran.text
    assert {job.name for job in ran.jobs} == {"lint", "test"}
    assert "Successfully installed" in ran.text


@pytest.mark.parametrize("name", RUNS)
def test_baked_image_has_everything(name: str, projects: Projects, builder: Builder, registry_image: str) -> None:
    """Broken: a job on the baked image fails, or needs the network."""
    folder = projects[name]
    env = {"CI_REGISTRY_IMAGE": registry_image}
    done = builder("build", "--lock", lock_of(folder), cwd=folder, env=env)
    assert done.returncode == 0, done.stderr
    take(folder, "after")
    ran = run_pipeline(folder, variables=env, options=() if name in ASK_THE_INDEX else NO_NETWORK)
    assert ran.exit_code == 0, ran.text
    assert {job.image for job in ran.jobs} == set(done.stdout.split())
    assert all(job.passed for job in ran.jobs)
    assert not re.search(r"Successfully installed|Downloading|Prepared|^\S+ +> +\+ ", ran.text, re.MULTILINE)
