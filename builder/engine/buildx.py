"""`docker buildx`: which builder is meant, whether that is the engine itself, and builds with their progress."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

from builder.errors import CommandError, EngineError
from builder.oci.credentials import docker_environment
from builder.process import ProcessGroup, run

OLDEST_BUILDX: Final = (0, 13)  # the first with --progress=rawjson
Provenance = Literal["min", "max"]


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What buildx is asked for; `contexts` say where an image named in the Dockerfile really comes from."""

    context: Path
    tag: str
    platform: str
    metadata: Path
    labels: Mapping[str, str]
    contexts: Mapping[str, str]
    secrets: Mapping[str, Path]
    build_args: Sequence[str]  # names; the values are in the environment
    cache_from: str | None  # a registry reference that steps were cached under
    cache_to: str | None  # one to cache them under
    provenance: Provenance | None  # how much is told of the build
    sbom: str | None  # the image that lists what is in it, for an SBOM
    no_cache: bool
    pull: bool

    @property
    def attested(self) -> bool:
        """Whether the image is to have attestations."""
        return self.sbom is not None or self.provenance is not None


@dataclass(kw_only=True)
class Buildx:
    """A builder by its name; without one BUILDX_BUILDER's, or the one that `docker buildx use` chose."""

    builder: str | None = None
    processes: ProcessGroup = field(default_factory=ProcessGroup)

    def check(self) -> None:
        """Raise EngineError unless there is a buildx that is new enough."""
        try:
            answer = run(["docker", "buildx", "version"])
        except CommandError as error:
            raise EngineError(
                "no docker command in PATH",
                hint="builds go through docker buildx; install Docker's command line",
            ) from error
        found = re.search(r"\bv?(\d+)\.(\d+)\.\d+", answer.stdout)
        if answer.returncode or not found:
            raise EngineError(
                "docker has no buildx",
                hint="install the package docker-buildx-plugin (Debian: docker-buildx)",
            )
        if (int(found[1]), int(found[2])) < OLDEST_BUILDX:
            raise EngineError(
                f"docker buildx is {found[1]}.{found[2]}, too old",
                hint=f"builder needs {OLDEST_BUILDX[0]}.{OLDEST_BUILDX[1]} or later",
            )

    @cached_property
    def is_separate(self) -> bool:
        """Whether the builder is another than the engine that the docker command talks to.

        Raises EngineError where there is no such builder, or no answer from it.
        """
        name = [self.builder] if self.builder else []
        answer = run(["docker", "buildx", "inspect", *name])
        said: dict[str, str] = dict(re.findall(r"^(\w+): +(\S.*)$", answer.stdout, re.MULTILINE))
        if answer.returncode or "Error" in said or "Driver" not in said:
            why = said.get("Error") or answer.stderr.strip().removeprefix("ERROR: ")
            raise EngineError(
                f"the builder {self.builder or said.get('Name', 'of buildx')} does not answer: {why}",
                hint="`docker buildx ls` lists the builders",
            )
        return said["Driver"] != "docker"  # which buildx allows for the engine of the current context alone

    def build(self, request: BuildRequest, output: Sequence[str], *, on_line: Callable[[str], None]) -> int:
        """Build; hand over each line of progress (JSON), return the exit code. `output` says where the image goes."""
        options = [
            "--platform", request.platform,
            "--metadata-file", str(request.metadata),
            *output,
            # GitLab's registry rejects some attestations; plain manifests are taken everywhere.
            f"--provenance={f'mode={request.provenance}' if request.provenance else 'false'}",
            f"--sbom={f'generator={request.sbom}' if request.sbom else 'false'}",
            "--tag", request.tag,
            *(["--no-cache"] if request.no_cache else []),
            *(["--pull"] if request.pull else []),
        ]  # fmt: skip
        for name, value in request.labels.items():
            options += ["--label", f"{name}={value}"]
        for name, value in request.contexts.items():
            options += ["--build-context", f"{name}={value}"]
        for name, path in request.secrets.items():
            options += ["--secret", f"id={name},src={path}"]
        for name in request.build_args:
            options += ["--build-arg", name]
        if request.cache_from:
            options += ["--cache-from", f"type=registry,ref={request.cache_from}"]
        if request.cache_to:
            # As an image manifest, which registries take that know no other kind; a fault of the cache fails no build.
            options += [
                "--cache-to",
                f"type=registry,ref={request.cache_to},mode=max,image-manifest=true,ignore-error=true",
            ]
        return self.run([*options, str(request.context)], on_line=on_line)

    def run(self, arguments: Sequence[str], *, on_line: Callable[[str], None]) -> int:
        """Run `docker buildx build` on the builder, with its progress as JSON."""
        chosen = ["--builder", self.builder] if self.builder else []
        # A context that lies in somebody's repository would have that one's address in the provenance.
        environment = {**os.environ, "DOCKER_BUILDKIT": "1", "BUILDX_GIT_INFO": "false"}
        argv = ["docker", "buildx", "build", *chosen, "--progress", "rawjson", *arguments]
        with docker_environment() as logins:
            return self.processes.stream(argv, env={**environment, **logins}, on_line=on_line)
