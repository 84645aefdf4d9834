"""A builder without an engine beside it, as on a Kubernetes runner: builds leave archives, checks run as its steps.

Each check is a throw-away build whose one step is the check's script, on the image out of the very archive that is then
pushed: buildx hands it to the builder from here (`oci-layout://`), so that the builder needs no registry for it.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from builder.engine.buildx import BuildRequest, Buildx
from builder.engine.docker import DockerEngine
from builder.engine.progress import ProgressReader, StepOutput, Vertex
from builder.engine.protocol import ContainerExit, Engine
from builder.errors import EngineError
from builder.oci.archive import ImageArchive

_EXIT_CODE: Final = re.compile(r"did not complete successfully: exit code: (?P<code>\d+)")


def engine_for_push(buildx: Buildx) -> Engine:
    """Return the engine here, or where none answers the builder alone, which keeps images for as long as the run."""
    engine = DockerEngine(buildx=buildx)
    if engine.is_running():
        return engine
    try:
        return BuildxEngine(buildx=buildx) if buildx.is_separate else engine
    except EngineError:
        if buildx.builder:
            raise
        return engine  # which says of itself what is wrong


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """A built image: its archive in the OCI layout, and its platform."""

    path: Path
    platform: str


@dataclass(kw_only=True)
class BuildxEngine:
    """See `builder.engine.Engine`; images are kept as archives, in a folder that goes with the run."""

    buildx: Buildx
    _folder: tempfile.TemporaryDirectory[str] = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="builder-")
    )
    _images: dict[str, _Kept] = field(default_factory=dict)

    def check(self) -> None:
        """See `Engine.check`."""
        self.buildx.check()

    def check_attestations(self) -> None:
        """See `Engine.check_attestations`: an archive keeps them."""

    def build(self, request: BuildRequest, *, on_line: Callable[[str], None]) -> int:
        """See `Engine.build`."""
        path = Path(self._folder.name, f"{request.tag.rpartition(':')[2]}.tar")
        returncode = self.buildx.build(request, ["--output", f"type=oci,dest={path}"], on_line=on_line)
        if not returncode:
            self._images[request.tag] = _Kept(path=path, platform=request.platform)
        return returncode

    def tag(self, image: str, name: str) -> None:
        """See `Engine.tag`."""
        self._images[name] = self._kept(image)

    def find_image_id(self, image: str) -> str:
        """See `Engine.find_image_id`."""
        with ImageArchive(self._kept(image).path) as archive:
            return str(archive.entry["digest"])

    def save(self, image: str, path: Path) -> None:
        """See `Engine.save`."""
        shutil.copyfile(self._kept(image).path, path)

    def _kept(self, image: str) -> _Kept:
        if image not in self._images:
            raise EngineError(f"no image {image} was built in this run", hint="there is no engine here to keep images")
        return self._images[image]

    @contextlib.contextmanager
    def volume(self, image: str, target: str, content: IO[bytes]) -> Iterator[str]:
        """See `Engine.volume`: a folder that each run gets as it was, for what a step writes to a mount is dropped."""
        with tempfile.TemporaryDirectory(dir=self._folder.name) as scratch:
            _unpack(content, Path(scratch, "context", target.strip("/")))
            Path(scratch, "context", "tmp").mkdir()
            Path(scratch, "context", "tmp").chmod(0o1777)
            with self._kept(image).path.open("rb") as saved:
                _unpack(saved, Path(scratch, "image"))
            yield scratch

    def run(
        self, image: str, script: str, *, volume: str, target: str, workdir: str, user: str | None, seconds: float
    ) -> ContainerExit:
        """See `Engine.run`."""
        started = time.monotonic()
        with tempfile.TemporaryDirectory(dir=volume) as scratch:
            dockerfile = Path(scratch, "Dockerfile")
            with ImageArchive(self._kept(image).path) as archive:
                kept = f"oci-layout://{volume}/image@{archive.entry['digest']}"
                # A step runs without it, a job does not.
                entry_point = (archive.config.config and archive.config.config.entry_point) or ()
            argv = [*entry_point, "timeout", f"{seconds:.0f}", "sh", "-c", f"cd {shlex.quote(workdir)}\n{script}"]
            dockerfile.write_text(_dockerfile(argv, target=target, user=user), encoding="utf-8")
            options = ["--platform", self._kept(image).platform, "--build-context", f"image={kept}"]
            # A step whose result is in the cache would not run.
            options += ["--no-cache", "--output", "type=cacheonly", "--file", str(dockerfile), f"{volume}/context"]
            step = _Step()
            returncode = self.buildx.run(options, on_line=step.read)
        if returncode and time.monotonic() - started > seconds:
            return ContainerExit(exit_code=124, output=f"not done within {seconds:.0f} seconds")
        return step.ran(returncode)

    def stop(self) -> None:
        """See `Engine.stop`."""
        self.buildx.processes.stop()


def _unpack(content: IO[bytes], folder: Path) -> None:
    with tarfile.open(fileobj=content) as tar:
        # It was written here: modes are to stay as they are, which the filter of Python 3.14 does not let them.
        tar.extraction_filter = lambda member, _: member
        tar.extractall(folder)  # noqa: S202


def _dockerfile(argv: list[str], *, target: str, user: str | None) -> str:
    """One step that runs the command without a network; with /tmp a mount too, little stays in the builder's cache."""
    mounts = " ".join(f"--mount=type=bind,source={path},target={path},rw" for path in (target, "/tmp"))  # noqa: S108
    return "\n".join(
        ["FROM image", *([f"USER {user}"] if user else []), f"RUN --network=none {mounts} {json.dumps(argv)}", ""]
    )


@dataclass(kw_only=True)
class _Step:
    """What the step printed, and how it ended."""

    progress: ProgressReader = field(default_factory=ProgressReader)
    printed: dict[bool, list[bytes]] = field(default_factory=lambda: {False: [], True: []})
    errors: list[str] = field(default_factory=list)
    plain: list[str] = field(default_factory=list)

    def read(self, line: str) -> None:
        for news in self.progress.read(line):
            if isinstance(news, StepOutput):
                self.printed[news.is_stdout].append(news.data)
            elif isinstance(news, Vertex):
                self.errors += [news.error] if news.error else []
            else:
                self.plain.append(news)

    def ran(self, returncode: int) -> ContainerExit:
        """How the script ended; raise EngineError where it was the build around it that failed."""
        output = b"".join([*self.printed[False], *self.printed[True]]).decode(errors="replace")
        if not returncode:
            return ContainerExit(exit_code=0, output=output)
        codes = [int(found["code"]) for error in self.errors if (found := _EXIT_CODE.search(error))]
        if not codes:
            said = self.errors or [line for line in self.plain if line.strip()][-1:]
            raise EngineError(f"the builder cannot run a check: {said[0] if said else f'exit code {returncode}'}")
        return ContainerExit(exit_code=codes[0], output=output)
