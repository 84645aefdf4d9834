"""A CI job on an image, here: the checkout and the variables that a runner gives it, and the user's own terminal.

It is not the run of a build, which is `builder.run`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.contract import BUILDS, PROJECT, VERIFY_LABEL
from builder.engine.docker import DockerEngine
from builder.errors import CommandError, EngineError, UsageError, counted
from builder.lock.model import Lock
from builder.lock.project import project_name
from builder.matrix.model import branch_slug
from builder.oci.credentials import docker_environment
from builder.process import attached, run
from builder.verify.checkout import Checkout, checkout_tar


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """A job: its image, checkout, script (None for a shell), variables, and user (None for the image's own).

    A variable without a value has that of this process, which is then in no command line.

    The checkout is a copy, or with `mounted` the folder itself, so that what the job writes stays.
    """

    image: str
    checkout: Checkout
    script: str | None
    variables: Mapping[str, str | None]
    user: str | None = None
    network: bool = True
    mounted: bool = False
    terminal: bool = False

    @property
    def command(self) -> tuple[str, ...]:
        """What runs the script."""
        return ("sh",) if self.script is None else ("sh", "-c", self.script)

    def options(self, mount: str, name: str) -> list[str]:
        """The arguments of `docker run` with this mount, for a container with this name."""
        return [
            "run", "--rm", "--interactive", *(["--tty"] if self.terminal else []),
            "--name", name, "--label", VERIFY_LABEL, "--mount", mount, "--workdir", self.checkout.path,
            *([] if self.network else ["--network", "none"]), *(["--user", self.user] if self.user else []),
            *_env_options(self.variables), self.image, *self.command,
        ]  # fmt: skip


def rehearse(job: Rehearsal, engine: DockerEngine) -> int:
    """Run the job in a container, attached to this terminal, and return its exit code."""
    _require_image(job.image, engine)
    name = f"builder-run-{uuid.uuid4().hex[:12]}"
    with _mount(job, engine) as mount:
        return attached(
            ["docker", *job.options(mount, name)],
            env=os.environ,
            on_interrupt=lambda: run(["docker", "kill", name]),
        )


def _env_options(variables: Mapping[str, str | None]) -> list[str]:
    pairs = (name if value is None else f"{name}={value}" for name, value in variables.items())
    return [word for pair in pairs for word in ("--env", pair)]


@contextlib.contextmanager
def _mount(job: Rehearsal, engine: DockerEngine) -> Iterator[str]:
    """How the checkout gets into the container: in a volume, as with a runner, or mounted."""
    if job.mounted:
        yield f"type=bind,source={job.checkout.top},target={BUILDS}/{PROJECT}"
        return
    with checkout_tar(job.checkout) as content, engine.volume(job.image, BUILDS, content) as volume:
        yield f"type=volume,source={volume},target={BUILDS}"


def _require_image(image: str, engine: DockerEngine) -> None:
    """Pull the image unless the engine has it; raise UsageError if there is none, EngineError without an engine."""
    if not engine.is_running():
        hint = "start Docker, or name an engine with DOCKER_HOST"
        raise EngineError("no Docker engine answers, and a job needs one here", hint=hint)
    try:
        engine.find_image_id(image)
    except EngineError as missing:
        with docker_environment() as logins:
            env = {**os.environ, **logins}
            code = attached(["docker", "pull", "--quiet", image], env=env, on_interrupt=lambda: None)
        if code:
            raise UsageError(
                f"there is no image {image}", hint="`builder build` makes it; --image names another one"
            ) from missing


def job_script(arguments: Sequence[str], lock: Lock, *, sync: bool, network: bool = True) -> str:
    """The script of a job: one argument is a script of its own, several are the words of a command.

    With `sync`, the project is installed before, as jobs do it: with a uv.lock, by `uv sync --frozen`. Without a
    network uv is told so; otherwise it asks the index for newer build systems.
    """
    command = arguments[0] if len(arguments) == 1 else shlex.join(arguments)
    if not sync or lock.kind != "uv.lock":
        return command
    # Quietly: what follows is what somebody wants to see. An error is printed nevertheless.
    flags = [*([] if network else ["--offline"]), *lock.uv_flags]
    return f"{shlex.join(['uv', 'sync', '--frozen', '--quiet', *flags])} && {{ {command}\n}}"


def job_variables(checkout: Checkout, more: Mapping[str, str | None]) -> dict[str, str | None]:
    """The variables of GitLab (and of others: CI) that scripts read, and those that the user adds."""
    folder = f"{BUILDS}/{PROJECT}"
    commit, branch = _git(checkout.top, "rev-parse", "HEAD"), _git(checkout.top, "symbolic-ref", "--short", "HEAD")
    known = {
        "CI": "true", "GITLAB_CI": "true", "CI_SERVER": "yes", "CI_JOB_NAME": "builder run", "CI_JOB_STAGE": "test",
        "CI_BUILDS_DIR": BUILDS, "CI_PROJECT_DIR": folder, "CI_PROJECT_NAME": project_name(checkout.lock),
        "CI_COMMIT_SHA": commit, "CI_COMMIT_SHORT_SHA": commit[:8], "CI_COMMIT_REF_NAME": branch,
        "CI_COMMIT_BRANCH": branch, "CI_COMMIT_REF_SLUG": _slug(branch),
    }  # fmt: skip
    return {**{name: value for name, value in known.items() if value}, **more}


def parse_variables(texts: Sequence[str], environment: Mapping[str, str]) -> dict[str, str | None]:
    """Parse `NAME=VALUE`, or `NAME` (None) for its value here; raise UsageError for what is neither."""
    found: dict[str, str | None] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not re.fullmatch(r"[A-Za-z_]\w*", name) or not (equals or name in environment):
            raise UsageError(
                f"--env {text!r} names no variable" if equals or not name else f"--env {name}: it is not set here",
                hint="write NAME=VALUE, or the NAME of a variable that is set",
            )
        found[name] = value if equals else None
    return found


def _git(top: Path, *arguments: str) -> str:
    """What git says; '' without git, or outside of a repository."""
    try:
        answer = run(["git", *arguments], cwd=top)
    except CommandError:
        return ""
    return "" if answer.returncode else answer.stdout.strip()


def _slug(branch: str) -> str:
    try:
        return branch_slug(branch) if branch else ""
    except UsageError:
        return ""


def described(job: Rehearsal) -> str:
    """The job in a line, for people."""
    parts = [
        f"on {job.image}", "in the folder itself" if job.mounted else "in a copy of the checkout",
        *([f"as {job.user}"] if job.user else []), *([] if job.network else ["without a network"]),
        counted(len(job.variables), "variable"),
    ]  # fmt: skip
    return ", ".join(parts)
