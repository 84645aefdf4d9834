"""An engine that consists of a buildx builder alone, as on a Kubernetes runner.

Builds write archives. Each check runs as the only step of a throw-away build, on the image from the archive that will
be pushed: buildx sends it to the builder (`oci-layout://`), so that the builder needs no registry for it.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from builder.engine.buildx import BuildRequest, Buildx
from builder.engine.docker import DockerEngine
from builder.engine.progress import ProgressReader, StepOutput, Vertex
from builder.engine.protocol import ContainerExit, Engine, ignore_line
from builder.errors import CommandError, EngineError
from builder.matrix.model import Platform
from builder.oci.archive import ImageArchive
from builder.oci.layout import write_archive
from builder.oci.loopback import Content
from builder.oci.manifest import ConfigSection
from builder.oci.reference import ImageRef

_EXIT_CODE: Final = re.compile(r"did not complete successfully: exit code: (?P<code>\d+)")


def find_engine(buildx: Buildx) -> Engine | None:
    """Return the Docker engine; if none runs, the buildx builder alone, which keeps images until the run ends.

    None if there is no builder either. Raises EngineError if the builder was named and does not answer.
    """
    engine = DockerEngine(buildx=buildx)
    if engine.is_running():
        return engine
    try:
        return BuildxEngine(buildx=buildx) if buildx.is_separate else None
    except (CommandError, EngineError):
        if buildx.builder:
            raise
        return None


@dataclass(frozen=True, kw_only=True)
class _Build:
    """A built image: its archive in the OCI layout, its platform, and the turn that its checks take.

    BuildKit loads an image once for all builds that want it at the same time, from the first of them, and fails the
    others when that one is done.
    """

    path: Path
    platform: str
    turn: threading.Lock = field(default_factory=threading.Lock)


@dataclass(kw_only=True)
class BuildxEngine:
    """See `Engine`. Images are kept as archives, in a folder that is removed when the run ends."""

    buildx: Buildx
    _folder: tempfile.TemporaryDirectory[str] = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="builder-")
    )
    _images: dict[str, _Build] = field(default_factory=dict)
    limits: tuple[str, ...] = ()

    def runs(self, platform: Platform) -> bool:
        """See `Engine.runs`."""
        return self.buildx.runs(platform)

    def check(self) -> None:
        """See `Engine.check`."""
        self.buildx.check()

    def check_attestations(self) -> None:
        """See `Engine.check_attestations`. Archives can store them."""

    def build(self, request: BuildRequest, *, on_line: Callable[[str], None]) -> int:
        """See `Engine.build`."""
        tag = str(request.tag)
        path = Path(self._folder.name, f"{tag.rpartition(':')[2]}.tar")
        returncode = self.buildx.build(request, ["--output", f"type=oci,dest={path}"], on_line=on_line)
        if not returncode:
            self._images[tag] = _Build(path=path, platform=request.platform)
        return returncode

    def load(self, content: Content, tag: ImageRef, platform: str) -> None:
        """See `Engine.load`."""
        path = Path(self._folder.name, f"{tag.tag}.tar")
        write_archive(content, tag, path)
        self._images[str(tag)] = _Build(path=path, platform=platform)

    def tag(self, image: str, name: str) -> None:
        """See `Engine.tag`."""
        self._images[name] = self._find(image)

    def find_image_id(self, image: str) -> str:
        """See `Engine.find_image_id`."""
        with ImageArchive(self._find(image).path) as archive:
            return str(archive.entry["digest"])

    def find_image_config(self, image: str) -> ConfigSection:
        """See `Engine.find_image_config`."""
        with ImageArchive(self._find(image).path) as archive:
            return archive.config.config or ConfigSection()

    def read_file(self, image: str, path: str) -> bytes | None:
        """See `Engine.read_file`."""
        with ImageArchive(self._find(image).path) as archive:
            found = (dict(archive.files(layer)).get(path.lstrip("/")) for layer in reversed(archive.layers))
            return next((content for content in found if content is not None), None)

    def save(self, image: str, path: Path) -> None:
        """See `Engine.save`."""
        shutil.copyfile(self._find(image).path, path)

    def _find(self, image: str) -> _Build:
        if image not in self._images:
            raise EngineError(
                f"image {image} was not built in this run",
                hint="start a Docker engine, which keeps images between runs",
            )
        return self._images[image]

    @contextlib.contextmanager
    def volume(self, image: str, target: str, content: IO[bytes]) -> Iterator[str]:
        """See `Engine.volume`. A folder, unchanged for each run, because BuildKit discards writes to a mount."""
        with tempfile.TemporaryDirectory(dir=self._folder.name) as scratch:
            _unpack(content, Path(scratch, "context", target.strip("/")))
            Path(scratch, "context", "tmp").mkdir()
            Path(scratch, "context", "tmp").chmod(0o1777)
            with self._find(image).path.open("rb") as saved:
                _unpack(saved, Path(scratch, "image"))
            yield scratch

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
        with self._find(image).turn, tempfile.TemporaryDirectory(dir=volume) as scratch:
            started = time.monotonic()
            dockerfile = Path(scratch, "Dockerfile")
            with ImageArchive(self._find(image).path) as archive:
                context = f"oci-layout://{volume}/image@{archive.entry['digest']}"
                # Unlike a container, a build step ignores the entry point.
                entry_point = (archive.config.config and archive.config.config.entry_point) or ()
            argv = [*entry_point, "timeout", f"{seconds:.0f}", "sh", "-c", f"cd {shlex.quote(workdir)}\n{script}"]
            dockerfile.write_text(_dockerfile(argv, target=target), encoding="utf-8")
            options = ["--platform", self._find(image).platform, "--build-context", f"image={context}"]
            # A step with a cached result would not run.
            options += ["--no-cache", "--output", "type=cacheonly", "--file", str(dockerfile), f"{volume}/context"]
            step = _Step(on_line=on_line)
            returncode = self.buildx.run(options, on_line=step.read)
        if returncode and time.monotonic() - started > seconds:
            return ContainerExit(exit_code=124, output=f"not done within {seconds:.0f} seconds")
        return step.result(returncode)

    def stop(self) -> None:
        """See `Engine.stop`."""
        self.buildx.processes.stop()

    def raise_if_stopped(self) -> None:
        """See `Engine.raise_if_stopped`."""
        self.buildx.processes.raise_if_stopped()


def _unpack(content: IO[bytes], folder: Path) -> None:
    with tarfile.open(fileobj=content) as tar:
        # The tar was written here, and modes must stay; the default filter of Python 3.14 changes them.
        tar.extraction_filter = lambda member, _: member
        tar.extractall(folder)  # noqa: S202


def _dockerfile(argv: list[str], *, target: str) -> str:
    """A Dockerfile whose only step runs the command without a network. /tmp is a mount too, to keep the cache small."""
    mounts = " ".join(f"--mount=type=bind,source={path},target={path},rw" for path in (target, "/tmp"))  # noqa: S108
    return f"FROM image\nRUN --network=none {mounts} {json.dumps(argv)}\n"


@dataclass(kw_only=True)
class _Step:
    """The output and the errors of a step."""

    on_line: Callable[[str], None]
    rest: bytes = b""  # of stdout, without a line break yet
    progress: ProgressReader = field(default_factory=ProgressReader)
    printed: dict[bool, list[bytes]] = field(default_factory=lambda: {False: [], True: []})
    errors: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)  # of buildx itself

    def read(self, line: str) -> None:
        for event in self.progress.read(line):
            if isinstance(event, StepOutput):
                self.printed[event.is_stdout].append(event.data)
                self._tell(event.data if event.is_stdout else b"")
            elif isinstance(event, Vertex):
                self.errors += [event.error] if event.error else []
            elif isinstance(event, str):
                self.messages.append(event)

    def _tell(self, piece: bytes) -> None:
        *lines, self.rest = (self.rest + piece).split(b"\n")
        for line in lines:
            self.on_line(line.decode(errors="replace"))

    def result(self, returncode: int) -> ContainerExit:
        """The exit of the script; raise EngineError if not the script but the build failed."""
        output = b"".join([*self.printed[False], *self.printed[True]]).decode(errors="replace")
        if not returncode:
            return ContainerExit(exit_code=0, output=output)
        codes = [int(match["code"]) for error in self.errors if (match := _EXIT_CODE.search(error))]
        if not codes:
            # buildx may print a stack trace after its error.
            last = [line for line in self.messages if line.strip()][-1:]
            reasons = self.errors or [line for line in self.messages if line.startswith("ERROR: ")] or last
            raise EngineError(f"the builder cannot run a check: {[*reasons, f'exit code {returncode}'][0]}")
        return ContainerExit(exit_code=codes[0], output=output)
