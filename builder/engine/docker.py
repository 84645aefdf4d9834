"""The Docker engine: images, containers and builds of one daemon. The only `import docker`."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import docker
import requests
from docker.context import ContextAPI
from docker.models.containers import Container
from docker.types import Mount

from builder.engine.buildx import BuildRequest, Buildx
from builder.engine.protocol import ContainerExit
from builder.errors import EngineError, InterruptedRun

_TIMEOUT: Final = 60  # seconds for an answer of the daemon


@dataclass(kw_only=True)
class DockerEngine:
    """The Docker daemon that DOCKER_HOST, DOCKER_CONTEXT or the current context names, with buildx."""

    buildx: Buildx = field(default_factory=Buildx)
    _containers: set[Container] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _connected: Any = None

    def is_running(self) -> bool:
        """Whether there is an engine at all."""
        try:
            with self._engine_errors():
                self._client.ping()
        except EngineError:
            return False
        return True

    def check(self) -> None:
        """See `Engine.check`."""
        with self._engine_errors():
            self._client.ping()
        self.buildx.check()
        _ = self.buildx.is_separate  # raises where there is no such builder

    def check_attestations(self) -> None:
        """See `Engine.check_attestations`."""
        with self._engine_errors():
            status = dict(self._client.info().get("DriverStatus") or ())
        if not status.get("driver-type", "").startswith("io.containerd.snapshotter"):
            raise EngineError(
                f"the Docker engine at {_host()} keeps no attestations: its image store is not containerd's",
                hint='turn that on ("features": {"containerd-snapshotter": true} in daemon.json), '
                "or leave --provenance and --sbom out",
            )

    def build(self, request: BuildRequest, *, on_line: Callable[[str], None]) -> int:
        """See `Engine.build`."""
        if not self.buildx.is_separate:
            return self.buildx.build(request, ["--load"], on_line=on_line)
        with tempfile.TemporaryDirectory(prefix="builder-") as scratch:
            saved = Path(scratch, "image.tar")
            kind = "oci" if request.attested else "docker"  # the latter is read by every store, and knows no indexes
            returncode = self.buildx.build(request, ["--output", f"type={kind},dest={saved}"], on_line=on_line)
            if not returncode:
                with self._engine_errors(), saved.open("rb") as file:
                    self._client.images.load(file)
            return returncode

    def tag(self, image: str, name: str) -> None:
        """See `Engine.tag`."""
        repository, _, tag = name.rpartition(":")
        with self._engine_errors():
            self._client.api.tag(image, repository, tag)

    def find_image_id(self, image: str) -> str:
        """See `Engine.find_image_id`."""
        try:
            with self._engine_errors():
                return str(self._client.api.inspect_image(image)["Id"])  # type: ignore[no-untyped-call]
        except docker.errors.ImageNotFound as error:
            raise EngineError(f"no image {image} in the engine", hint="build it, or docker pull it") from error

    def save(self, image: str, path: Path) -> None:
        """See `Engine.save`."""
        with self._engine_errors(), path.open("wb") as file:
            for chunk in self._client.api.get_image(image, chunk_size=1 << 20):
                file.write(chunk)

    @contextlib.contextmanager
    def volume(self, image: str, target: str, content: IO[bytes]) -> Iterator[str]:
        """See `Engine.volume`."""
        with self._engine_errors():
            made = self._client.volumes.create(labels=_marks(image))
        try:
            with self._engine_errors():
                mount = Mount(target=target, source=made.name, type="volume")
                filler = self._client.containers.create(image, ["true"], mounts=[mount], network_mode="none")
                try:
                    filler.put_archive(target, content)
                finally:
                    filler.remove(force=True)
            yield made.name
        finally:
            with contextlib.suppress(docker.errors.APIError, requests.RequestException):
                made.remove(force=True)

    def run(
        self,
        image: str,
        script: str,
        *,
        volume: str,
        target: str,
        workdir: str,
        user: str | None,
        seconds: float,
    ) -> ContainerExit:
        """See `Engine.run`."""
        with self._engine_errors():
            container = self._client.containers.create(
                image,
                ["sh", "-c", script],
                mounts=[Mount(target=target, source=volume, type="volume")],
                working_dir=workdir,
                network_mode="none",
                user=user,
                labels=_marks(image),
            )
        try:
            with self._engine_errors():
                self._start(container)
                try:
                    status = container.wait(timeout=seconds)
                except requests.exceptions.ConnectionError:  # how the SDK reports a read time-out
                    return ContainerExit(exit_code=124, output=f"not done within {seconds:.0f} seconds")
                # Apart, for the daemon does not keep the order between the two streams.
                output = b"".join(container.logs(stdout=not err, stderr=err) for err in (True, False))
            if self.buildx.processes.stopped.is_set():
                raise InterruptedRun("interrupted")
            return ContainerExit(exit_code=status["StatusCode"], output=output.decode(errors="replace"))
        finally:
            with self._lock:
                self._containers.discard(container)
            with contextlib.suppress(docker.errors.APIError, requests.RequestException):
                container.remove(force=True, v=True)

    def _start(self, container: Container) -> None:
        with self._lock:
            if self.buildx.processes.stopped.is_set():
                raise InterruptedRun("interrupted")
            self._containers.add(container)
        container.start()

    def stop(self) -> None:
        """See `Engine.stop`."""
        self.buildx.processes.stop()
        with self._lock:
            running = list(self._containers)
        for container in running:
            with contextlib.suppress(docker.errors.APIError, requests.RequestException):
                container.kill()

    @property
    def _client(self) -> docker.DockerClient:
        with self._lock:
            if self._connected is None:
                with self._engine_errors():
                    self._connected = _connect()
            client: docker.DockerClient = self._connected
            return client

    @contextlib.contextmanager
    def _engine_errors(self) -> Iterator[None]:
        """Turn what the SDK raises into EngineError that says which engine was asked."""
        try:
            yield
        except docker.errors.ImageNotFound:
            raise
        except docker.errors.APIError as error:
            raise EngineError(f"the Docker engine at {_host()} says: {error.explanation or error}") from error
        except (docker.errors.DockerException, requests.RequestException) as error:
            if "PermissionError" in repr(error) or "Permission denied" in str(error):
                why, hint = "does not let this user in", "join the group docker, or run as a user who may"
            else:
                why, hint = "does not answer", "start it; is `docker info` well?"
            said = "" if os.environ.get("DOCKER_HOST") else " (DOCKER_HOST is not set)"
            raise EngineError(f"the Docker engine at {_host()}{said} {why}", hint=hint) from error


def _marks(image: str) -> dict[str, str]:
    """The labels of containers and volumes that a verification makes, by which leftovers of a killed run are found."""
    return {"io.gitlab.prebuilt": "verify", "io.gitlab.prebuilt.image": image}


def _host() -> str:
    if os.environ.get("DOCKER_HOST"):
        return os.environ["DOCKER_HOST"]
    context = ContextAPI.get_current_context()
    return str(context.Host) if context else "unix:///var/run/docker.sock"


def _connect() -> docker.DockerClient:
    """Connect as the docker command does: DOCKER_HOST first, then the context."""
    if os.environ.get("DOCKER_HOST"):
        return docker.from_env(timeout=_TIMEOUT)
    context = ContextAPI.get_current_context()
    return docker.DockerClient(base_url=_host(), tls=(context and context.TLSConfig) or False, timeout=_TIMEOUT)
