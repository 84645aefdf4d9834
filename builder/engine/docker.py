"""The Docker engine: images, containers and builds of one daemon."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any, Final

import docker
import requests
from docker.models.containers import Container
from docker.types import LogConfig, Mount
from pydantic import Field

from builder.contract import VERIFIED_IMAGE_LABEL, VERIFY_LABEL
from builder.engine.buildx import BuildRequest, Buildx
from builder.engine.docker_client import connect_docker, docker_host
from builder.engine.follow import OnLine, followed
from builder.engine.history import EngineLayer, layers_in
from builder.engine.protocol import ContainerExit, ignore_line
from builder.errors import BuilderError, EngineError
from builder.http import RefusedError
from builder.matrix.model import Platform
from builder.oci.layout import write_archive
from builder.oci.loopback import Content, serve
from builder.oci.manifest import ConfigSection
from builder.oci.reference import ImageRef
from builder.parse import Document, fields_or_raise, parse_or_raise

_FULL: Final = "no space left on device"
_SOCKET: Final = "unix://"  # the engine may be on this machine; in a virtual machine, its loopback is another
_LOG: Final = {"max-size": "32m", "max-file": "1"}  # what is kept of a container's output


class _Image(Document):
    """The answer to `GET /images/{name}/json` (Docker Engine API)."""

    id: str = Field(alias="Id")
    config: ConfigSection | None = Field(None, alias="Config")


class _Info(Document):
    """The answer to `GET /info` (Docker Engine API)."""

    driver_status: list[Annotated[list[str], Field(min_length=2, max_length=2)]] | None = Field(
        None, alias="DriverStatus"
    )


class _Exit(Document):
    """The answer to `POST /containers/{id}/wait` (Docker Engine API)."""

    status_code: int = Field(alias="StatusCode")


@dataclass(kw_only=True)
class DockerEngine:
    """The Docker daemon that DOCKER_HOST, DOCKER_CONTEXT or the current context names, with buildx. See `Engine`."""

    buildx: Buildx = field(default_factory=Buildx)
    _containers: set[Container] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _connected: Any = None
    limits: tuple[str, ...] = ()

    def is_running(self) -> bool:
        """Ask whether a Docker engine answers."""
        try:
            with self._engine_errors():
                self._client.ping()
        except EngineError:
            return False
        return True

    def runs(self, platform: Platform) -> bool:
        """See `Engine.runs`. The builder of the engine itself tells, which may be another one than builds images."""
        return (Buildx(builder="default") if self.buildx.is_separate else self.buildx).runs(platform)

    def check(self) -> None:
        """See `Engine.check`."""
        with self._engine_errors():
            self._client.ping()
        self.buildx.check()
        _ = self.buildx.is_separate  # raises if the builder does not answer

    def check_attestations(self) -> None:
        """See `Engine.check_attestations`."""
        with self._engine_errors():
            answer = fields_or_raise(_Info, self._client.info(), _malformed())
        status = {pair[0]: pair[1] for pair in answer.driver_status or ()}
        if not status.get("driver-type", "").startswith("io.containerd.snapshotter"):
            raise EngineError(
                f"the Docker engine at {docker_host()} cannot store attestations: its image store is not containerd's",
                hint='enable it ("features": {"containerd-snapshotter": true} in daemon.json), '
                "or omit --provenance and --sbom",
            )

    def build(self, request: BuildRequest, *, on_line: Callable[[str], None]) -> int:
        """See `Engine.build`."""
        if not self.buildx.is_separate:
            return self.buildx.build(request, ["--load"], on_line=on_line)
        with tempfile.TemporaryDirectory(prefix="builder-") as scratch:
            saved = Path(scratch, "image.tar")
            kind = "oci" if request.attested else "docker"  # every store reads the latter, which cannot hold indexes
            returncode = self.buildx.build(request, ["--output", f"type={kind},dest={saved}"], on_line=on_line)
            if not returncode:
                with self._engine_errors(), saved.open("rb") as file:
                    self._client.images.load(file)
            return returncode

    def load(self, content: Content, tag: ImageRef, platform: str) -> None:
        """See `Engine.load`. An engine that does not reach this process's port, as in another machine, gets it all."""
        if docker_host().startswith(_SOCKET):
            with serve(content) as source:
                reason = self._pull(source, platform)
                if not reason:
                    self.tag(source, str(tag))
                    with self._tidying():
                        self._client.api.remove_image(source, noprune=True)
                    return
            if _FULL in reason:  # all of the image needs more room than the difference
                raise EngineError(reason)
        with tempfile.TemporaryDirectory(prefix="builder-") as scratch:
            saved = Path(scratch, "image.tar")
            write_archive(content, tag, saved)
            with self._engine_errors(), saved.open("rb") as file:
                self._client.images.load(file)

    def _pull(self, source: str, platform: str) -> str:
        """Pull an image; return the reason if that fails, or an empty text."""
        name, _, digest = source.partition("@")
        try:
            with self._engine_errors():
                for line in self._client.api.pull(name, tag=digest, platform=platform, stream=True, decode=True):
                    if isinstance(line, dict) and "error" in line:
                        return f"the Docker engine at {docker_host()} reports: {line['error']}"
        except EngineError as error:
            return error.what
        except docker.errors.ImageNotFound as error:
            return str(error)
        return ""

    def tag(self, image: str, name: str) -> None:
        """See `Engine.tag`."""
        repository, _, tag = name.rpartition(":")
        with self._engine_errors():
            self._client.api.tag(image, repository, tag)

    def find_image_id(self, image: str) -> str:
        """See `Engine.find_image_id`."""
        return self._inspect(image).id

    def find_image_config(self, image: str) -> ConfigSection:
        """See `Engine.find_image_config`."""
        return self._inspect(image).config or ConfigSection()

    def find_layers(self, image: str) -> tuple[EngineLayer, ...]:
        """Look up the layers of an image in the store, the lowest first; raise EngineError if it is not there."""
        self._inspect(image)
        with self._engine_errors():
            answer = self._client.api.history(image)  # type: ignore[no-untyped-call]
        return layers_in(answer, _malformed())

    def _inspect(self, image: str) -> _Image:
        try:
            with self._engine_errors():
                answer = self._client.api.inspect_image(image)  # type: ignore[no-untyped-call]
        except docker.errors.ImageNotFound as error:
            raise EngineError(
                f"no image {image} in the engine", hint="build it, or pull it with docker pull"
            ) from error
        return parse_or_raise(_Image, json.dumps(answer), _malformed())

    def read_file(self, image: str, path: str) -> bytes | None:
        """See `Engine.read_file`. From a container that never runs."""
        with self._engine_errors():
            container = self._client.containers.create(image, ["true"], network_mode="none", labels=_labels(image))
            try:
                stream, _ = container.get_archive(path)
                with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
                    entry = tar.next()
                    content = tar.extractfile(entry) if entry and entry.isreg() else None
                    return content.read() if content else None
            except docker.errors.NotFound:
                return None
            finally:
                container.remove(force=True, v=True)

    def save(self, image: str, path: Path) -> None:
        """See `Engine.save`."""
        with self._engine_errors(), path.open("wb") as file:
            for chunk in self._client.api.get_image(image, chunk_size=1 << 20):
                self.raise_if_stopped()
                file.write(chunk)

    @contextlib.contextmanager
    def volume(self, image: str, target: str, content: IO[bytes]) -> Iterator[str]:
        """See `Engine.volume`."""
        with self._engine_errors():
            volume = self._client.volumes.create(labels=_labels(image))
        try:
            with self._engine_errors():
                mount = Mount(target=target, source=volume.name, type="volume")
                filler = self._client.containers.create(image, ["true"], mounts=[mount], network_mode="none")
                try:
                    filler.put_archive(target, content)
                finally:
                    filler.remove(force=True)
            yield volume.name
        finally:
            with self._tidying():
                volume.remove(force=True)

    def run(
        self,
        image: str,
        script: str,
        *,
        volume: str,
        target: str,
        workdir: str,
        seconds: float,
        on_line: Callable[[str], None] = ignore_line,
    ) -> ContainerExit:
        """See `Engine.run`."""
        with self._engine_errors():
            container = self._client.containers.create(
                image,
                ["sh", "-c", script],
                mounts=[Mount(target=target, source=volume, type="volume")],
                working_dir=workdir,
                network_mode="none",
                labels=_labels(image),
                log_config=LogConfig(type=LogConfig.types.JSON, config=_LOG),
            )
        try:
            with self._engine_errors():
                self._start(container)
                try:
                    with _followed(container, on_line):
                        status = container.wait(timeout=seconds)
                except requests.exceptions.ConnectionError:  # the SDK's way to report a read timeout
                    return ContainerExit(exit_code=124, output=f"not done within {seconds:.0f} seconds")
                # Separately, because the daemon does not keep the order between the two streams.
                output = b"".join(container.logs(stdout=not err, stderr=err) for err in (True, False))
            self.raise_if_stopped()
            code = fields_or_raise(_Exit, status, _malformed()).status_code
            return ContainerExit(exit_code=code, output=output.decode(errors="replace"))
        finally:
            with self._lock:
                self._containers.discard(container)
            with self._tidying():
                container.remove(force=True, v=True)

    def _start(self, container: Container) -> None:
        with self._lock:
            self.raise_if_stopped()
            self._containers.add(container)
        container.start()

    def stop(self) -> None:
        """See `Engine.stop`."""
        self.buildx.processes.stop()
        with self._lock:
            running = list(self._containers)
        for container in running:
            with self._tidying():
                container.kill()

    def raise_if_stopped(self) -> None:
        """See `Engine.raise_if_stopped`."""
        self.buildx.processes.raise_if_stopped()

    @property
    def _client(self) -> docker.DockerClient:
        with self._lock:
            if self._connected is None:
                with self._engine_errors():
                    self._connected = connect_docker(self.raise_if_stopped)
            client: docker.DockerClient = self._connected
            return client

    @contextlib.contextmanager
    def _tidying(self) -> Iterator[None]:
        """Ignore failures of the engine: what is not removed does no harm."""
        with contextlib.suppress(EngineError, docker.errors.ImageNotFound), self._engine_errors():
            yield

    @contextlib.contextmanager
    def _engine_errors(self) -> Iterator[None]:
        """Turn the SDK's exceptions into EngineError, which names the engine."""
        try:
            yield
        except docker.errors.ImageNotFound:
            raise
        except docker.errors.APIError as error:
            raise EngineError(f"the Docker engine at {docker_host()} reports: {error.explanation or error}") from error
        except RefusedError as error:
            what = f"the Docker engine at {docker_host()} sent {error}"
            raise EngineError(what, hint="check that it is one") from error
        except (docker.errors.DockerException, requests.RequestException) as error:
            if "PermissionError" in repr(error) or "Permission denied" in str(error):
                reason, hint = "denies access to this user", "add the user to the group docker"
            else:
                reason, hint = "does not answer", "start it, and check it with `docker info`"
            note = "" if os.environ.get("DOCKER_HOST") else " (DOCKER_HOST is not set)"
            raise EngineError(f"the Docker engine at {docker_host()}{note} {reason}", hint=hint) from error
        except (BuilderError, OSError):
            raise
        except Exception as error:  # the SDK takes what it gets for what it expects
            raise _malformed() from error


def _followed(container: Container, on_line: OnLine) -> contextlib.AbstractContextManager[None]:
    """Tell what a container prints; all of it is read again afterwards."""
    return followed(lambda: container.logs(stdout=True, stderr=False, stream=True, follow=True), on_line)


def _labels(image: str) -> dict[str, str]:
    """The labels of a verification's containers and volumes, by which the leftovers of a killed run can be found."""
    return {VERIFY_LABEL: "verify", VERIFIED_IMAGE_LABEL: image}


def _malformed() -> EngineError:
    return EngineError(f"the Docker engine at {docker_host()} sent a malformed answer", hint="update it")
