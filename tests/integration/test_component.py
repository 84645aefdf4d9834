"""The GitLab component in a consumer's project: from the schedule to jobs on the images."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import requests

from builder.layer.store import LayerStore
from builder.matrix.model import Platform
from builder.oci.reference import ImageRef
from builder.verify.checks import CHECKS
from tests.integration.conftest import docker, images_of
from tests.integration.faults import Answer, between
from tests.integration.gitlab import REGISTRY, ContainerExit, run_pipeline, runs_pipelines
from tests.integration.nightly import SLIM, Nightly, standing
from tests.integration.registries import an_open_registry
from tests.integration.seeds import Seeds, published_once
from tests.integration.test_cross import OTHER, machine_code, put_for_both
from tests.layers import file, tar_of
from tests.shared import Shared

pytestmark = [pytest.mark.integration, runs_pipelines]

__all__ = ["an_open_registry", "published_once"]

OWN = Platform.of_this_machine().architecture
HERE = Path(__file__).parents[2]
CLI = f"{REGISTRY}/acme/builder/cli:test"
SOCKET = "/var/run/docker.sock"
# Docker's default capabilities, and no engine.
UNPRIVILEGED = (
    f'grep -q CapEff:.*a80425fb /proc/self/status && test ! -e {SOCKET} && test -z "$DOCKER_HOST" && '
    "echo without privileges"
)
ASSERTING = f"      before_script: ['{UNPRIVILEGED}']\n"

PIPELINE = """\
include:
  - component: $CI_SERVER_FQDN/acme/builder/prebuilt@1.0.0
    inputs:
      image: {cli}
{inputs}
workflow:
  rules:
    - if: $CI_PIPELINE_SOURCE == "merge_request_event"
    - if: $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH

stages: [build, test]

test:
  stage: test
  image: $CI_REGISTRY_IMAGE/ci:3.13-slim$PREBUILT
  script:
    - prebuilt-status --fail
    - uv sync --frozen
    - python -c "import idna; print('idna', idna.__version__)"
"""


@pytest.fixture(scope="session")
def component(shared: Shared) -> Path:
    """A repository with version 1.0.0 of the component, and its image in the registry."""

    def make(folder: Path) -> str:
        made = subprocess.run(["make", "image", f"IMAGE={CLI}"], cwd=HERE, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stdout + made.stderr
        docker("push", "--quiet", CLI)
        shutil.copytree(HERE / "templates", folder / "templates")
        git = ["git", "-C", str(folder), "-c", "user.name=Acme", "-c", "user.email=acme@example.com"]
        for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "Made"], ["tag", "1.0.0"]):
            subprocess.run([*git, *command], check=True)
        return str(folder)

    return Path(shared.once("component", make))


@dataclass(frozen=True, kw_only=True)
class Consumer:
    """A project that includes the component, and the path of its images."""

    project: Nightly
    component: Path
    path: str
    volumes: Mapping[str, str] = field(default_factory=dict)

    def write(self, *, idna: str, inputs: str = "") -> None:
        """Write and lock the project with this version of idna."""
        self.project.lock(idna=idna)
        text = PIPELINE.format(cli=CLI, inputs=inputs)
        (self.project.folder / ".gitlab-ci.yml").write_text(text)

    def run(self, **variables: str) -> ContainerExit:
        """Run a pipeline as on a GitLab runner whose jobs have neither privileges nor an engine's socket."""
        defaults = {
            "CI_REGISTRY_IMAGE": f"{REGISTRY}/{self.path}", "CI_DEFAULT_BRANCH": "main",
            **{name: os.environ[name] for name in ("BUILDER_MIRRORS",) if name in os.environ},
        }  # fmt: skip
        return run_pipeline(
            self.project.folder, variables=defaults | variables, volumes=self.volumes,
            projects={"acme/builder": self.component}, options=["--network", "host"],
        )  # fmt: skip

    def published(self, seeds: Seeds) -> None:
        """Have the images that the night's pipeline would have pushed."""
        registry = f"{REGISTRY}/{self.path}"
        project = replace(self.project, repository=f"{registry}/ci", env={"CI_REGISTRY_IMAGE": registry})
        seeds.publish(project, tags=["3.13-slim"])

    def scheduled(self) -> ContainerExit:
        """The scheduled pipeline on the default branch."""
        return self.run(CI_PIPELINE_SOURCE="schedule", CI_COMMIT_BRANCH="main")

    def merge_request(self, source_project: str = "1", **variables: str) -> ContainerExit:
        """The pipeline of merge request 7 from this project, or from a fork."""
        return self.run(
            CI_PIPELINE_SOURCE="merge_request_event", CI_COMMIT_BRANCH="", CI_MERGE_REQUEST_IID="7",
            CI_MERGE_REQUEST_PROJECT_ID="1", CI_MERGE_REQUEST_SOURCE_PROJECT_ID=source_project, **variables,
        )  # fmt: skip

    def named(self, *tags: str) -> dict[str, str | None]:
        """The digests of tags in the registry."""
        return standing(REGISTRY, f"{self.path}/ci", tags)


@pytest.fixture
def consumer(component: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Consumer]:
    """The project with its own repository, no image built yet."""
    path = f"acme/{request.node.name.replace('_', '-')}-{os.getpid()}"
    project = Nightly(folder=tmp_path, repository="", env={})
    project.matrix()
    matrix = (tmp_path / "matrix.toml").read_text().replace('repository = ""\n', "")
    (tmp_path / "matrix.toml").write_text(matrix.replace('"3.11", ', ""))
    made = Consumer(project=project, component=component, path=path)
    made.write(idna="3.9")
    yield made
    for tag in images_of(f"{REGISTRY}/{path}/ci"):
        docker("image", "rm", "--force", f"{REGISTRY}/{path}/ci:{tag}")


def names(ran: ContainerExit) -> list[str]:
    """The names of the jobs that ran; fail unless all passed."""
    assert ran.exit_code == 0, ran.text
    assert all(job.passed for job in ran.jobs), ran.text
    return [job.name for job in ran.jobs]


def test_from_schedule_to_jobs(consumer: Consumer) -> None:
    """Broken: a schedule with the component builds no images, or jobs do not run on them."""
    consumer.write(idna="3.9", inputs=ASSERTING)
    first = consumer.scheduled()
    assert names(first) == ["prebuilt", "test"]
    assert "without privileges" in first["prebuilt"].output
    assert "idna 3.9" in first["test"].output
    assert first["test"].image == f"{REGISTRY}/{consumer.path}/ci:3.13-slim"
    before = consumer.named("3.13-slim")
    reports = consumer.project.folder / "prebuilt-reports"
    (suite,) = ElementTree.parse(reports / "junit.xml").getroot()  # noqa: S314
    assert (suite.attrib["name"], suite.attrib["failures"]) == ("3.13-slim", "0")
    assert {case.attrib["name"] for case in suite} == {"build", *CHECKS}
    sizes = [line for line in (reports / "metrics.txt").read_text().splitlines() if "_bytes{" in line]
    assert [line.partition("{")[0] for line in sizes] == ["prebuilt_image_bytes", "prebuilt_image_new_bytes"]
    assert sizes[0].partition(" ")[2] == sizes[1].partition(" ")[2]  # all of the first image is new
    assert json.loads((reports / "gl-code-quality-report.json").read_text()) == []
    assert "idna" in (reports / "3.13-slim.cdx.json").read_text()
    second = consumer.scheduled()
    assert "without privileges" in second["prebuilt"].output
    assert "nothing to do: 1 cell is up to date" in second["prebuilt"].output
    assert 'prebuilt_image_new_bytes{cell="3.13-slim"} 0\n' in (reports / "metrics.txt").read_text()
    (suite,) = ElementTree.parse(reports / "junit.xml").getroot()  # noqa: S314
    assert {case.attrib["name"] for case in suite} == {"build", *CHECKS}  # those that it was pushed with
    assert consumer.named("3.13-slim") == before


def test_from_schedule_to_jobs_with_one_file(consumer: Consumer) -> None:
    """Broken: a copy of the component in the project, without builder's repository, builds nothing."""
    folder = consumer.project.folder
    (folder / ".gitlab").mkdir()
    shutil.copy(HERE / "templates/prebuilt.yml", folder / ".gitlab/prebuilt.yml")
    text = (folder / ".gitlab-ci.yml").read_text()
    component = "component: $CI_SERVER_FQDN/acme/builder/prebuilt@1.0.0"
    (folder / ".gitlab-ci.yml").write_text(text.replace(component, "local: .gitlab/prebuilt.yml"))
    ran = consumer.scheduled()
    assert names(ran) == ["prebuilt", "test"]
    assert ran["test"].image == f"{REGISTRY}/{consumer.path}/ci:3.13-slim"


def test_engine_of_the_runner(consumer: Consumer) -> None:
    """Broken: who has an engine for jobs cannot build with it."""
    with_socket = replace(consumer, volumes={SOCKET: SOCKET})
    with_socket.write(idna="3.9", inputs="      engine: own\n      options: --maker buildkit\n")
    ran = with_socket.run(
        CI_PIPELINE_SOURCE="schedule", CI_COMMIT_BRANCH="main", DOCKER_HOST=f"unix://{SOCKET}"
    )  # fmt: skip
    assert names(ran) == ["prebuilt", "test"]


def test_merge_request_runs_on_images_of_its_own(consumer: Consumer, seeds: Seeds) -> None:
    """Broken: a merge request that changes the lock does not get its own images, or changes those of other jobs."""
    consumer.published(seeds)
    before = consumer.named("3.13-slim")
    unchanged = consumer.merge_request()
    assert names(unchanged) == ["test"]
    assert unchanged["test"].image.endswith("/ci:3.13-slim")

    consumer.write(idna="3.10", inputs=ASSERTING)
    changed = consumer.merge_request()
    assert names(changed) == ["prebuilt-merge-request", "test"]
    assert "without privileges" in changed["prebuilt-merge-request"].output
    assert changed["test"].image.endswith("/ci:3.13-slim-mr-7")
    assert "idna 3.10" in changed["test"].output
    assert consumer.named("3.13-slim") == before
    assert consumer.named("3.13-slim-mr-7")["3.13-slim-mr-7"] not in {None, before["3.13-slim"]}

    fork = consumer.merge_request(source_project="2")
    assert [job.name for job in fork.jobs] == ["test"]
    assert "1 package differs" in fork["test"].output  # the lock has changed since the image was built


def test_platform_that_no_runner_has(consumer: Consumer, tmp_path: Path) -> None:
    """Broken: where nothing runs the image for one of two platforms, tags move, or the report does not say what ran."""
    store = LayerStore(folder=tmp_path / "store")
    programs = tar_of(*(file(name, machine_code(OTHER), 0o755) for name in ("usr/bin/dash", "usr/bin/bash")))
    uv = tar_of(*(file(name, machine_code(OTHER), 0o755) for name in ("uv", "uvx")))
    base, own_uv = (
        ImageRef.from_str(f"{REGISTRY}/{consumer.path}/{name}") for name in ("python:3.13-slim-bookworm", "uv:0.13.8")
    )
    slim = ImageRef.from_str("docker.io/library/python:3.13-slim-bookworm")
    put_for_both(slim, base, store, None, above=programs)
    put_for_both(ImageRef.from_str("ghcr.io/astral-sh/uv:0.13.8"), own_uv, store, uv)
    matrix = consumer.project.folder / "matrix.toml"
    platforms = json.dumps([f"linux/{OWN}", f"linux/{OTHER}"])
    settings = f'uv-image = "{own_uv.without_tag()}"\nplatforms = {platforms}\n'
    image = f"{REGISTRY}/{consumer.path}/python:{{python}}-slim-bookworm"
    matrix.write_text(settings + matrix.read_text().replace(SLIM, image))
    inputs = f"      parallel: true\n      runners: linux/{OTHER}=other\n{ASSERTING}"
    consumer.write(idna="3.9", inputs=inputs)
    ran = consumer.run(CI_PIPELINE_SOURCE="schedule", CI_COMMIT_BRANCH="main", CI_RUNNER_TAGS='["docker"]')
    child = "[prebuilt-parallel] ->"
    assert {job.name: job.passed for job in ran.jobs} == {
        "prebuilt-plan": True,
        f"{child} build 3.13-slim-{OWN}": True, f"{child} build 3.13-slim-{OTHER}": True,
        f"{child} verify 3.13-slim-{OWN}": True, f"{child} verify 3.13-slim-{OTHER}": False,
    }, ran.text  # fmt: skip
    assert f"maker: cross: this machine runs no programs for linux/{OTHER}" in ran.text
    assert "exec format error" in ran.text.lower()
    # Both images are there, each under a tag that says that it is unverified; nothing else.
    listed = requests.get(f"http://{REGISTRY}/v2/{consumer.path}/ci/tags/list", timeout=30).json()["tags"]
    assert len(listed) == 2
    assert all(tag.endswith("-unverified") for tag in listed)


def test_a_job_for_each_image(consumer: Consumer) -> None:
    """Broken: images are not built in parallel, or tags move before all images are built."""
    inputs = ["parallel: true", "prune: true", ASSERTING.strip(), "options: --jobs 1"]
    consumer.write(idna="3.9", inputs="".join(f"      {each}\n" for each in inputs))
    ran = consumer.run(CI_PIPELINE_SOURCE="schedule", CI_COMMIT_BRANCH="main", CI_RUNNER_TAGS='["docker"]')
    assert names(ran) == [
        "prebuilt-plan",
        "[prebuilt-parallel] -> build 3.13-slim",
        "[prebuilt-parallel] -> verify 3.13-slim",
        "[prebuilt-parallel] -> promote",
        "test",
    ]
    assert consumer.named("3.13-slim")["3.13-slim"]
    built = ran["[prebuilt-parallel] -> build 3.13-slim"]
    assert "without privileges" in built.output
    assert any("--lock uv.lock --jobs 1" in line.text for line in built.lines)
    verified = ran["[prebuilt-parallel] -> verify 3.13-slim"]
    digest = consumer.named("3.13-slim")["3.13-slim"]
    assert re.fullmatch(rf"{REGISTRY}/{consumer.path}/ci:3\.13-slim-\w+-unverified@{digest}", verified.image)
    assert "any-user             passed" in verified.output
    assert "0 tags deleted" in ran["[prebuilt-parallel] -> promote"].output
    again = consumer.scheduled()
    assert names(again) == ["prebuilt-plan", "[prebuilt-parallel] -> nothing to do", "test"]
    assert "without privileges" in again["prebuilt-plan"].output

    # A merge request that bumps one package, while the registry fails to move tags; and once more when it does not.
    consumer.write(idna="3.10", inputs="".join(f"      {each}\n" for each in inputs))
    child = "[prebuilt-merge-request-parallel] ->"
    with between(REGISTRY) as proxy:
        proxy.on("PUT", "/manifests/3.13-slim-mr-7$", Answer(status=403), times=None)
        failed = consumer.merge_request(CI_REGISTRY_IMAGE=f"{proxy.host}/{consumer.path}")
    passed = {job.name: job.passed for job in failed.jobs if job.name != "test"}  # GitLab does not start that one
    assert passed == {
        "prebuilt-merge-request": True, f"{child} build 3.13-slim": True, f"{child} verify 3.13-slim": True,
        f"{child} promote": False,
    }  # fmt: skip
    assert failed.exit_code
    assert "no tag has changed" in failed.text
    assert consumer.named("3.13-slim", "3.13-slim-mr-7") == {"3.13-slim": digest, "3.13-slim-mr-7": None}
    repeated = consumer.merge_request()
    assert names(repeated) == ["prebuilt-merge-request", f"{child} promote", "test"]
    assert "idna 3.10" in repeated["test"].output
    assert consumer.named("3.13-slim") == {"3.13-slim": digest}
