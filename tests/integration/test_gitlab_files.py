"""The output of `builder ci images` and `builder ci pipeline`, with a real registry."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
import yaml

from builder.verify.script import INSIDE
from tests.integration.conftest import docker, own_name
from tests.integration.nightly import TAGS, Nightly, standing
from tests.integration.registries import Registry, an_open_registry
from tests.integration.seeds import Seeds, published_once

pytestmark = pytest.mark.integration

__all__ = ["an_open_registry", "published_once"]

SCHEMA = json.loads(files("check_jsonschema.builtin_schemas.vendor").joinpath("gitlab-ci.json").read_text("utf-8"))


@pytest.fixture
def nightly(open_registry: Registry, tmp_path: Path, request: pytest.FixtureRequest) -> Nightly:
    """The project with its own, empty repository."""
    made = Nightly(folder=tmp_path, repository=f"{open_registry.host}/{own_name(request)}", env={})
    made.lock()
    made.matrix(extra='aliases = { latest = "3.11-slim" }')
    return made


def read(text: str) -> dict[str, Any]:
    """Parse the YAML and validate it with GitLab's schema."""
    table: dict[str, Any] = yaml.safe_load(text)
    jsonschema.validate(table, SCHEMA)
    return table


def of(nightly: Nightly, *arguments: str) -> str:
    """The output of `builder ci …`."""
    done = nightly.builder("ci", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_images_are_the_published_ones(nightly: Nightly, seeds: Seeds) -> None:
    """Broken: jobs extend an image that does not exist, or one that the tag does not name."""
    seeds.publish(nightly)
    host, _, path = nightly.repository.partition("/")
    digests = standing(host, path)
    jobs = read(of(nightly, "images", "--dotenv", "prebuilt.env"))
    assert jobs == {
        ".prebuilt-3.11-slim": {
            "image": {"name": f"{nightly.repository}:3.11-slim", "pull_policy": ["always", "if-not-present"]}
        },
        ".prebuilt-3.13-slim": {
            "image": {"name": f"{nightly.repository}:3.13-slim", "pull_policy": ["always", "if-not-present"]}
        },
        ".prebuilt": {"extends": ".prebuilt-3.11-slim"},
    }
    assert (nightly.folder / "prebuilt.env").read_text().splitlines() == [
        f"PREBUILT_3_11_SLIM={nightly.repository}:3.11-slim",
        f"PREBUILT_3_13_SLIM={nightly.repository}:3.13-slim",
        f"PREBUILT_DEFAULT={nightly.repository}:3.11-slim",
    ]
    pinned = of(nightly, "images", "--pin")
    for tag in TAGS:
        assert read(pinned)[f".prebuilt-{tag}"]["image"]["name"] == f"{nightly.repository}@{digests[tag]}"
        assert f"    # {tag}\n" in pinned
    assert of(nightly, "images", "--pin") == pinned
    of(nightly, "images", "--only", "python=3.13", "-o", "images.yml")
    assert read((nightly.folder / "images.yml").read_text())[".prebuilt"] == {"extends": ".prebuilt-3.13-slim"}


def test_cell_that_nobody_pushed_is_named(nightly: Nightly, seeds: Seeds) -> None:
    """Broken: the written file names missing images, or an existing file is partly overwritten."""
    never = nightly.builder("ci", "images")
    assert (never.returncode, never.stdout) == (4, "")
    assert f"not published: {nightly.repository}:3.11-slim, {nightly.repository}:3.13-slim" in never.stderr
    seeds.publish(nightly, "--only", "python=3.13", tags=["3.13-slim"])
    (nightly.folder / "images.yml").write_text("before")
    some = nightly.builder("ci", "images", "-o", "images.yml", "--dotenv", "prebuilt.env")
    assert some.returncode == 4
    assert f"not published: {nightly.repository}:3.11-slim\n" in some.stderr
    assert "`builder build --push`" in some.stderr
    assert (nightly.folder / "images.yml").read_text() == "before"
    assert not (nightly.folder / "prebuilt.env").exists()


def test_pipeline_builds_what_is_missing_and_promotes(nightly: Nightly, seeds: Seeds) -> None:
    """Broken: a child pipeline builds existing images, omits one, verifies another image, or moves tags too early."""
    keywords = "image: registry.example.com/cli:1\ntags: [docker]\nservices: []\nbefore_script:\n  - set -u\n"
    (nightly.folder / "job.yml").write_text(keywords)
    first = of(nightly, "pipeline", "--job", "job.yml", "--file", "matrix.toml")
    jobs = read(first)
    builds, checks = ([f"{verb} {tag}" for tag in TAGS] for verb in ("build", "verify"))
    assert list(jobs) == ["stages", *builds, *checks, "promote"]
    for name in [*builds, "promote"]:
        assert jobs[name]["image"] == "registry.example.com/cli:1"
        assert jobs[name]["before_script"] == ["set -u"]
    for name in checks:
        assert jobs[name]["image"] == "$PREBUILT_UNVERIFIED"
        assert "before_script" not in jobs[name]
    for name in list(jobs)[1:]:
        assert jobs[name]["tags"] == ["docker"]
        assert "services" not in jobs[name]
    assert of(nightly, "pipeline", "--job", "job.yml", "--file", "matrix.toml") == first

    seeds.publish(nightly, "--only", "python=3.11", tags=["3.11-slim"])
    second = read(of(nightly, "pipeline", "--reports", "out"))
    assert list(second) == ["stages", "build 3.13-slim", "verify 3.13-slim", "promote"]
    run(nightly, second["build 3.13-slim"])
    unverified = handed_over(nightly)
    host, _, path = nightly.repository.partition("/")
    tag, _, digest = unverified.rpartition("@")
    name = tag.rpartition(":")[2]
    immutable = name.removesuffix("-unverified")
    assert standing(host, path, [name, immutable, "3.13-slim"]) == {name: digest, immutable: None, "3.13-slim": None}
    assert list(read(of(nightly, "pipeline"))) == list(second)

    not_yet = run(nightly, second["promote"], fails=True)
    assert (not_yet.returncode, not_yet.stderr.splitlines()[0]) == (
        4, "builder: 3.13-slim was not verified: there is no prebuilt-verify/3.13-slim/results.json",
    )  # fmt: skip
    verify_in_a_job(nightly, second["verify 3.13-slim"], unverified)
    run(nightly, second["promote"])
    assert standing(host, path, [immutable, "3.13-slim"]) == {immutable: digest, "3.13-slim": digest}
    suites = ElementTree.parse(nightly.folder / "out" / "junit.xml").getroot()  # noqa: S314
    cases = {suite.attrib["name"]: {case.attrib["name"] for case in suite} for suite in suites}
    assert cases["3.13-slim"] == {"build", *INSIDE}
    assert nightly.builder("report", "-o", "public", "--results", "prebuilt-verify").returncode == 0
    page = (nightly.folder / "public" / "cell-3.13-slim.html").read_text()
    assert all(f'<th scope="row">{name}</th>' in page for name in INSIDE)

    last = read(of(nightly, "pipeline"))
    assert list(last) == ["stages", "nothing to do"]
    assert last["nothing to do"]["script"] == ["echo '2 cells are up to date'"]


def run(nightly: Nightly, job: dict[str, Any], *, fails: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a job's script with `builder` on the PATH; return how its last command ended."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for line in job["script"]:
        done = subprocess.run(
            line, shell=True, cwd=nightly.folder, env={**os.environ, "PATH": path}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert bool(done.returncode) == fails, done.stderr
    return done


def handed_over(nightly: Nightly) -> str:
    """The image that a build job hands over, as GitLab reads it: tag and digest."""
    line = (nightly.folder / "prebuilt-verify" / "3.13-slim" / "image.env").read_text()
    name = rf"{re.escape(nightly.repository)}:3\.13-slim-\w+-unverified@sha256:\w+"
    found = re.fullmatch(rf"PREBUILT_UNVERIFIED=({name})\n", line)
    assert found, line
    return found[1]


def verify_in_a_job(nightly: Nightly, job: dict[str, Any], image: str) -> None:
    """Run the script of a job on the image, in the checkout, as an unprivileged runner does; read its report."""
    (script,) = job["script"]
    nightly.folder.chmod(0o777)  # as a runner's checkout
    pull = docker("pull", "--quiet", image)
    try:
        volume = f"{nightly.folder}:/builds/nightly"
        docker("run", "--rm", "--volume", volume, "--workdir", "/builds/nightly", image, "sh", "-c", script)
    finally:
        docker("image", "rm", "--force", pull)
    (suite,) = ElementTree.parse(nightly.folder / job["artifacts"]["reports"]["junit"]).getroot()  # noqa: S314
    assert suite.attrib["name"] == image.partition("-unverified@")[0]
    assert suite.attrib["failures"] == "0"
    assert {case.attrib["name"] for case in suite} == set(INSIDE)


def test_pipeline_keeps_the_options(nightly: Nightly) -> None:
    """Broken: the jobs use a matrix, lock, branch or mirror other than that of the pipeline."""
    (nightly.folder / "matrix.toml").rename(nightly.folder / "ci matrix.toml")
    mirror = os.environ.get("BUILDER_MIRRORS", "docker.io=docker.io").split(",")[0]
    options = ("-f", "ci matrix.toml", "--lock", "uv.lock", "--branch", "mr-7", "--mirror", mirror)
    jobs = read(of(nightly, "pipeline", *options, "--only", "python=3.13"))
    assert list(jobs) == ["stages", "build 3.13-slim", "verify 3.13-slim", "promote"]
    words = f"--file 'ci matrix.toml' --lock uv.lock --branch mr-7 --mirror {mirror}"
    assert jobs["build 3.13-slim"]["script"] == [
        f"builder build --push --verify-later prebuilt-verify --only python=3.13,base=slim {words}"
    ]
    assert jobs["promote"]["script"] == [f"builder promote --results prebuilt-verify --only python=3.13 {words}"]
    more = ("--prune", "--environments", "--reports", "out")
    jobs = read(of(nightly, "pipeline", "-f", "ci matrix.toml", "--options", "--builder 'my pods' --jobs 1", *more))
    assert [name for name in jobs if name.startswith("use ")] == ["use 3.11-slim", "use 3.13-slim"]
    assert jobs["use 3.13-slim"]["image"]["name"] == f"{nightly.repository}:3.13-slim"
    assert jobs["use 3.13-slim"]["environment"]["name"] == "prebuilt/3.13-slim"
    assert jobs["promote"]["artifacts"]["reports"]["junit"] == "out/junit.xml"
    assert json.loads((nightly.folder / "out" / "gl-code-quality-report.json").read_text()) == []
    assert jobs["build 3.11-slim"]["script"][0].endswith("--file 'ci matrix.toml' --builder 'my pods' --jobs 1")
    assert jobs["promote"]["script"] == [
        "builder promote --results prebuilt-verify --reports out --file 'ci matrix.toml'",
        "builder prune --delete --file 'ci matrix.toml'",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image: [", "job.yml is not YAML"),
        ("- image", "job.yml is not a mapping of job keywords"),
        ("", "job.yml is not a mapping of job keywords"),
        ("image: a\nscript: [b]\n", "job.yml has script, which the pipeline sets itself"),
        (None, "cannot read job.yml: No such file or directory"),
    ],
)
def test_invalid_job_keywords(tmp_path: Path, text: str | None, words: str) -> None:
    """Broken: invalid job keywords are found only by GitLab, when the pipeline does not start."""
    nightly = Nightly(folder=tmp_path, repository="registry.invalid/ci", env={})
    nightly.lock()
    nightly.matrix()
    if text is not None:
        (tmp_path / "job.yml").write_text(text)
    done = nightly.builder("ci", "pipeline", "--job", "job.yml")
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--options", "--only python=3.13"), "--options contains --only, which builder adds to each job itself"),
        (("--options", "'"), "cannot be read: No closing quotation"),
        (("--prune", "--branch", "mr-7"), "--prune with --branch"),
    ],
)
def test_invalid_options(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    """Broken: options override those that each job needs."""
    nightly = Nightly(folder=tmp_path, repository="registry.invalid/ci", env={})
    nightly.lock()
    nightly.matrix()
    done = nightly.builder("ci", "pipeline", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


@pytest.mark.parametrize("command", ["images", "pipeline"])
def test_nowhere_to_publish(tmp_path: Path, command: str) -> None:
    """Broken: without a repository, builder writes a file with images that do not exist."""
    nightly = Nightly(folder=tmp_path, repository="x", env={"CI_REGISTRY_IMAGE": ""})
    nightly.lock()
    nightly.matrix()
    (tmp_path / "matrix.toml").write_text((tmp_path / "matrix.toml").read_text().partition("\n")[2])
    done = nightly.builder("ci", command)
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no repository to" in done.stderr
    assert "CI_REGISTRY_IMAGE" in done.stderr
