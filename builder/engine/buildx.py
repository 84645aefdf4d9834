"""`docker buildx`: finds the builder to use, and runs builds with their progress."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

from builder.errors import CommandError, EngineError
from builder.matrix.model import Platform
from builder.oci.credentials import docker_environment
from builder.process import Completed, ProcessGroup, run

OLDEST_BUILDX: Final = (0, 13)  # the first with --progress=rawjson
Provenance = Literal["min", "max"]

# BuildKit has a record of a step whose snapshot is gone: it may release one that two builds at the same time share,
# above all when one of them ends early (moby/buildkit#6808). From then on every build of that step fails.
DAMAGED_CACHE: Final = r"failed to stat (active key|lower snapshot)|snapshot \S+ does not exist"
WITHOUT_CACHE: Final = "builder: the engine's build cache is damaged; once more without it"


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """The options of a build. `contexts` maps images named in the Dockerfile to where they are fetched from.

    Without a tag it makes files, not an image.
    """

    context: Path
    platform: str
    contexts: Mapping[str, str]
    secrets: Mapping[str, Path]
    build_args: Sequence[str]  # names; the values are in the environment
    no_cache: bool = False
    pull: bool = False
    tag: str | None = None
    metadata: Path | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    cache_from: str | None = None  # the reference of a registry cache to read
    cache_to: str | None = None  # the reference of a registry cache to write
    provenance: Provenance | None = None
    sbom: str | None = None  # the image of the SBOM generator
    ssh_agent: bool = False  # that of SSH_AUTH_SOCK

    @property
    def attested(self) -> bool:
        """Whether the image gets attestations."""
        return self.sbom is not None or self.provenance is not None


@dataclass(kw_only=True)
class Buildx:
    """A builder, by name; without a name, BUILDX_BUILDER or the choice of `docker buildx use` applies."""

    builder: str | None = None
    processes: ProcessGroup = field(default_factory=ProcessGroup)

    def check(self) -> None:
        """Raise EngineError unless buildx is installed and new enough."""
        try:
            answer = run(["docker", "buildx", "version"])
        except CommandError as error:
            raise EngineError(
                "no docker command in PATH",
                hint="install Docker's command line; builder builds with docker buildx",
            ) from error
        version = re.search(r"\bv?(\d+)\.(\d+)\.\d+", answer.stdout)
        if answer.returncode or not version:
            raise EngineError(
                "docker has no buildx",
                hint="install the package docker-buildx-plugin (Debian: docker-buildx)",
            )
        if (int(version[1]), int(version[2])) < OLDEST_BUILDX:
            raise EngineError(
                f"docker buildx {version[1]}.{version[2]} is too old",
                hint=f"install {OLDEST_BUILDX[0]}.{OLDEST_BUILDX[1]} or later",
            )

    @cached_property
    def _inspected(self) -> Completed:
        return run(["docker", "buildx", "inspect", *([self.builder] if self.builder else [])])

    def runs(self, platform: Platform) -> bool:
        """Whether the builder has a machine for the platform, or emulates one; if it does not tell, if this one is."""
        try:
            lists: list[str] = re.findall(r"^Platforms: +(\S.*)$", self._inspected.stdout, re.MULTILINE)
        except CommandError:
            lists = []
        told = {name.strip("* ") for names in lists for name in names.split(",")}
        return str(platform) in told if told else platform == Platform.of_this_machine()

    @cached_property
    def is_separate(self) -> bool:
        """Whether the builder runs separately from the engine that the docker command uses; asked of buildx once.

        Raises EngineError if the builder does not exist or does not answer.
        """
        answer = self._inspected
        fields: dict[str, str] = dict(re.findall(r"^(\w+): +(\S.*)$", answer.stdout, re.MULTILINE))
        if answer.returncode or "Error" in fields or "Driver" not in fields:
            reason = fields.get("Error") or answer.stderr.strip().removeprefix("ERROR: ")
            raise EngineError(
                f"the buildx builder {self.builder or fields.get('Name', 'in use')} does not answer: {reason}",
                hint="list the builders with `docker buildx ls`",
            )
        return fields["Driver"] != "docker"  # buildx allows this driver for the current context's engine only

    def build(self, request: BuildRequest, output: Sequence[str], *, on_line: Callable[[str], None]) -> int:
        """Build; pass each line of progress (JSON) to `on_line`; return the exit code.

        `output` has the options of buildx that say where the image goes. If the engine's cache is damaged, the build
        runs once more without it, after the line `WITHOUT_CACHE`.
        """
        damages: list[str] = []

        def read(line: str) -> None:
            # What a step prints is in base64 here: this is BuildKit's own error.
            damages.extend(re.findall(DAMAGED_CACHE, line))
            on_line(line)

        returncode = self.run(_arguments(request, output), on_line=read)
        if returncode and damages and not request.no_cache:
            on_line(WITHOUT_CACHE)
            returncode = self.run(_arguments(replace(request, no_cache=True), output), on_line=on_line)
        return returncode

    def run(self, arguments: Sequence[str], *, on_line: Callable[[str], None]) -> int:
        """Run `docker buildx build` on the builder, with progress as JSON; return the exit code."""
        chosen = ["--builder", self.builder] if self.builder else []
        # If the context lies in a git repository, its address would be in the provenance.
        environment = {**os.environ, "DOCKER_BUILDKIT": "1", "BUILDX_GIT_INFO": "false"}
        argv = ["docker", "buildx", "build", *chosen, "--progress", "rawjson", *arguments]
        with docker_environment() as logins:
            return self.processes.stream(argv, env={**environment, **logins}, on_line=on_line)


def _arguments(request: BuildRequest, output: Sequence[str]) -> list[str]:
    """The arguments of buildx for a build."""
    options = [
        "--platform", request.platform,
        *(["--metadata-file", str(request.metadata)] if request.metadata else []),
        *output,
        # Off unless requested: GitLab's registry rejects some attestations; every registry accepts plain manifests.
        f"--provenance={f'mode={request.provenance}' if request.provenance else 'false'}",
        f"--sbom={f'generator={request.sbom}' if request.sbom else 'false'}",
        *(["--tag", request.tag] if request.tag else []),
        *(["--no-cache"] if request.no_cache else []),
        *(["--pull"] if request.pull else []),
    ]  # fmt: skip
    for name, value in request.labels.items():
        options += ["--label", f"{name}={value}"]
    for name, value in request.contexts.items():
        options += ["--build-context", f"{name}={value}"]
    for name, path in request.secrets.items():
        options += ["--secret", f"id={name},src={path}"]
    if request.ssh_agent:
        options += ["--ssh", "default"]
    for name in request.build_args:
        options += ["--build-arg", name]
    if request.cache_from:
        options += ["--cache-from", f"type=registry,ref={request.cache_from}"]
    if request.cache_to:
        # As an image manifest, which every registry accepts. A failure of the cache does not fail the build.
        options += [
            "--cache-to",
            f"type=registry,ref={request.cache_to},mode=max,image-manifest=true,ignore-error=true",
        ]
    return [*options, str(request.context)]
