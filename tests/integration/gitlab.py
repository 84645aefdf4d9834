"""A GitLab pipeline, run for real on this machine by gitlab-ci-local, each job's checkout in a volume of its own.

What gitlab-ci-local 4.65.0 does with a `.gitlab-ci.yml`, read in its source and tried:

- Only files in git's index go into a job. The volume is mounted at /builds/acme/shop and filled by `docker cp`; the
  script runs as root by bash where the image has one, else by sh, `set -eo pipefail`. Jobs without an image run on the
  machine itself, in the folder.
- `needs` with `optional: true`, `parallel: matrix`, `extends`, anchors, `!reference` and `default` work. The next jobs
  start when all that were started together have ended.
- `rules`: `if`, `exists`, and `changes` against `git diff origin/<default branch>`, `compare_to` unheeded.
  CI_PIPELINE_SOURCE is `push` unless a variable says otherwise; CI_COMMIT_BRANCH is set in merge request pipelines too.
- `artifacts: reports: dotenv` reach later jobs, and their `image:` as well. Artifacts are copied back into the folder.
- `cache` is a folder that is copied whole, uncompressed, into each job and out again, by rsync in the helper image;
  `key: files` works. Nothing is ever removed from it. `/cache` is no volume unless `volumes` makes one.
- `include: local`, and `include: component` with `spec: inputs` (its `regex` is unheeded): `name@$CI_COMMIT_SHA` of the
  project itself is read from the folder's `templates/`, every other component is cloned by git, from
  `https://gitlab.example.com:443/<project>.git`. `run_pipeline(projects=…)` lets git find those on this machine.
- `trigger: include: artifact` runs the child pipeline in the same process. A child that fails fails neither its trigger
  job nor the run, whatever `strategy` says: ask its jobs. The job that makes the artifact must have a name without
  spaces, or the child pipeline is silently empty.
- Variables given on the command line win over all others, a job's own included. CI_REGISTRY_IMAGE has a default; there
  is no CI_REGISTRY_USER or CI_REGISTRY_PASSWORD. `image: pull_policy` is unheeded.
- `secrets`, `id_tokens`, `resource_group`, `timeout`, `retry` and `interruptible` are read and have no effect.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from builder.errors import BuilderError

REGISTRY = os.environ.get("SANDBOX_REGISTRY", "localhost:5000")
HOST = "gitlab.example.com"
REMOTE = f"https://{HOST}/acme/shop.git"
HELPER = "firecow/gitlab-ci-local-util:latest"

# For modules of tests that run pipelines: a pipeline's own job has no gitlab-ci-local.
runs_pipelines = pytest.mark.skipif(
    not shutil.which("gitlab-ci-local"), reason="there is no gitlab-ci-local; `make test` installs it"
)

_CA_BUNDLE = "/run/ca-certificates.crt"
_CA_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")
_HANDED_ON = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "PIP_INDEX_URL")
_OURS = ("CI_REGISTRY_IMAGE", "CI_PIPELINE_SOURCE", "CI_COMMIT_BRANCH", "CI_COMMIT_REF_SLUG", "CI_DEFAULT_BRANCH")

_STARTING = re.compile(r"(?P<name>.+?) +starting (?P<image>\S+) \([^)]*\)$")
_FINISHED = re.compile(r"finished in (?P<time>[^ ]+ [^ ]+)(?P<fault>  (?:FAIL|WARN) .*)?")


@dataclass(frozen=True, kw_only=True)
class Line:
    """What was printed, and when: in seconds after the pipeline's start."""

    at: float
    text: str


@dataclass(frozen=True, kw_only=True)
class JobRan:
    """One job: all lines about it, those of its script marked `$ ` (a command, before it runs) or `> ` (what it said).

    A job that failed has not passed, even where it may fail.
    """

    name: str
    image: str
    passed: bool
    lines: tuple[Line, ...]

    @property
    def output(self) -> str:
        """What the script printed, without its commands."""
        return "\n".join(line.text[2:] for line in self.lines if line.text.startswith("> "))

    @property
    def seconds(self) -> float:
        """From the first line about the job to the last: its start, caches and artifacts included."""
        return self.lines[-1].at - self.lines[0].at


@dataclass(frozen=True, kw_only=True)
class ContainerExit:
    """A pipeline that has ended: its jobs in the order in which they started, and everything it printed."""

    exit_code: int
    jobs: tuple[JobRan, ...]
    text: str
    seconds: float

    def __getitem__(self, name: str) -> JobRan:
        """The job of this name; one of a child pipeline has the trigger before it: `[trigger] -> name`."""
        for job in self.jobs:
            if job.name == name:
                return job
        raise KeyError(f"no job {name!r} ran; these did: {[job.name for job in self.jobs]}\n{self.text}")


def run_pipeline(
    folder: Path,
    *jobs: str,
    variables: Mapping[str, str] | None = None,
    volumes: Mapping[str, str] | None = None,
    projects: Mapping[str, Path] | None = None,
    options: Sequence[str] = (),
) -> ContainerExit:
    """Run the folder's `.gitlab-ci.yml`, or some of its jobs, and return what happened, whatever it was.

    The folder becomes a git repository where it is none, everything in it is staged, and caches stay in it.
    `volumes` maps volumes or paths of this machine to where all jobs have them; `projects` maps projects whose
    components are included (`acme/builder`) to repositories here; `options` goes to gitlab-ci-local as it is.
    Jobs reach the package indexes that this machine reaches, unless the options say `--network none`.
    """
    program = shutil.which("gitlab-ci-local")
    if not program:
        raise BuilderError("gitlab-ci-local is not on PATH", hint="run this with sandbox/run, and see what it says")
    _make_repository(folder)
    with tempfile.TemporaryDirectory() as home:
        argv = [
            program,
            "--home",
            home,
            "--no-color",
            "--fetch-includes",
            "--pull-policy=if-not-present",
            *_helper(),
            *options,
        ]
        argv += [f"--ignore-predefined-vars={','.join(_OURS)}"]
        said = {**_trust(), **(variables or {})}
        argv += [f"--variable={name}={value}" for name, value in said.items()]
        # Child pipelines have those of the home folder alone, as they would have the project's; JSON is YAML.
        everywhere = {name: {"type": "variable", "values": {"*": value}} for name, value in said.items()}
        settings = Path(home, ".gitlab-ci-local", "variables.yml")
        settings.parent.mkdir()
        settings.write_text(json.dumps({"global": everywhere}), encoding="utf-8")
        argv += [f"--volume={source}:{target}" for source, target in {**_bundle(), **(volumes or {})}.items()]
        return _watch([*argv, *jobs], folder, {"NO_COLOR": "1", **_found_here(projects or {})})


def _found_here(projects: Mapping[str, Path]) -> dict[str, str]:
    """Git's configuration in the environment: what it would clone from our GitLab it finds on this machine."""
    found = {"GIT_CONFIG_COUNT": str(len(projects))}
    for number, (project, folder) in enumerate(projects.items()):
        found[f"GIT_CONFIG_KEY_{number}"] = f"url.file://{folder.resolve()}.insteadOf"
        found[f"GIT_CONFIG_VALUE_{number}"] = f"https://{HOST}:443/{project}.git"
    return found


def _watch(argv: Sequence[str], folder: Path, added: Mapping[str, str]) -> ContainerExit:
    started = time.monotonic()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GCL_")}
    with subprocess.Popen(
        argv, cwd=folder, env={**environment, **added},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        encoding="utf-8", errors="replace",
    ) as process:  # fmt: skip
        lines = [Line(at=time.monotonic() - started, text=line.rstrip("\n")) for line in process.stdout or ()]
    return ContainerExit(
        exit_code=process.returncode,
        jobs=tuple(_jobs(lines)),
        text="\n".join(line.text for line in lines),
        seconds=time.monotonic() - started,
    )


def _jobs(lines: Sequence[Line]) -> Iterator[JobRan]:
    for first in lines:
        if starting := _STARTING.match(first.text):
            # A name is padded with spaces, and may be the beginning of another one.
            own = re.compile(rf"{re.escape(starting['name'])} +(?P<rest>\S.*)")
            matches = [(line.at, own.fullmatch(line.text)) for line in lines]
            about = tuple(Line(at=at, text=match["rest"]) for at, match in matches if match)
            ends = [end for line in about if (end := _FINISHED.fullmatch(line.text))]
            yield JobRan(
                name=starting["name"].strip(),
                image=starting["image"],
                passed=any(not end["fault"] for end in ends),
                lines=about,
            )


def _make_repository(folder: Path) -> None:
    """A repository with one commit on main that the remote is said to have too, so that `rules: changes` has a base."""
    git = ["git", "-C", str(folder), "-c", "user.name=Acme", "-c", "user.email=acme@example.com"]
    if not (folder / ".git").exists():
        subprocess.run([*git, "init", "--quiet", "--initial-branch=main"], check=True)
        subprocess.run([*git, "remote", "add", "origin", REMOTE], check=True)
        subprocess.run([*git, "add", "--all"], check=True)
        subprocess.run([*git, "commit", "--quiet", "--message=The project"], check=True)
        subprocess.run([*git, "update-ref", "refs/remotes/origin/main", "HEAD"], check=True)
        subprocess.run([*git, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main"], check=True)
    subprocess.run([*git, "add", "--all"], check=True)


def _helper() -> list[str]:
    """With stand-ins, the one that the sandbox made; else gitlab-ci-local pulls its own."""
    return [f"--helper-image={REGISTRY}/{HELPER}"] if os.environ.get("SANDBOX_STAND_INS") == "1" else []


def _bundle() -> dict[str, str]:
    bundle = os.environ.get("SSL_CERT_FILE")
    return {bundle: f"{_CA_BUNDLE}:ro"} if bundle else {}


def _trust() -> dict[str, str]:
    """What a runner's own configuration would give to its jobs: who to trust, and where the packages are."""
    trusted = {name: _CA_BUNDLE for name in _CA_VARIABLES if _bundle()}
    return trusted | {name: os.environ[name] for name in _HANDED_ON if os.environ.get(name)}


@contextlib.contextmanager
def public_images(*names: str) -> Iterator[None]:
    """Let the engine have these images under their public names, `python:3.13-alpine` or `ghcr.io/astral-sh/uv:…`.

    Made from the sandbox's stand-ins; names that were not there before are gone afterwards.
    """
    added = add_public_images(*names)
    try:
        yield
    finally:
        for name in added:
            subprocess.run(["docker", "image", "rm", name], check=True, capture_output=True)


def add_public_images(*names: str) -> list[str]:
    """Do as `public_images` does; return the names that were not there before, for the caller to remove."""
    added = []
    for name in names:
        if os.environ.get("SANDBOX_STAND_INS") == "1" and not _known(name):
            _stand_in(name)
            added.append(name)
    return added


def _known(name: str) -> bool:
    return subprocess.run(["docker", "image", "inspect", name], check=False, capture_output=True).returncode == 0


def _stand_in(name: str) -> None:
    """Python's images are in the registry; `uv:<version>-python<minor>-<base>` is one of them with uv in it."""
    base, copied = f"{REGISTRY}/library/{name.removeprefix('docker.io/').removeprefix('library/')}", ""
    if match := re.fullmatch(r"ghcr\.io/astral-sh/uv:(?P<uv>[^-]+)-python(?P<python>[^-]+)-(?P<base>.+)", name):
        variant = {"bookworm-slim": "slim-bookworm"}.get(match["base"], match["base"])
        base = f"{REGISTRY}/library/python:{match['python']}-{variant}"
        copied = f"COPY --from={REGISTRY}/astral-sh/uv:{match['uv']} /uv /uvx /usr/local/bin/"
    argv = ["docker", "buildx", "build", "--quiet", "--load", "--provenance=false", "--tag", name, "-"]
    subprocess.run(argv, input=f"FROM {base}\n{copied}\n", text=True, check=True, capture_output=True)


@contextlib.contextmanager
def runner_volume() -> Iterator[str]:
    """A volume that outlives jobs, as a long-lived runner has one at /cache; its name. Gone afterwards."""
    name = f"runner-{secrets.token_hex(6)}"
    subprocess.run(["docker", "volume", "create", name], check=True, capture_output=True)
    try:
        yield name
    finally:
        subprocess.run(["docker", "volume", "rm", "--force", name], check=True, capture_output=True)
