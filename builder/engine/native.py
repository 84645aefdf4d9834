"""An engine that is no program: images are unpacked into folders, and containers are processes with such a root."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Final

from builder.contract import LAYER_KEY
from builder.engine.buildx import BuildRequest
from builder.engine.follow import followed_file
from builder.engine.protocol import ContainerExit, ignore_line
from builder.errors import EngineError
from builder.matrix.model import Platform
from builder.oci.loopback import Content
from builder.oci.manifest import ConfigSection, ImageConfig
from builder.oci.reference import Digest, ImageRef
from builder.parse import parse_or_raise
from builder.process import ProcessGroup
from builder.rootfs.folders import RootFolders
from builder.rootfs.task import Program, Task

_TIMED_OUT: Final = 124
_BUILDKIT_ONLY: Final = "name a BuildKit with --builder, or start a Docker engine"


@dataclass(frozen=True, kw_only=True)
class _Unpacked:
    """The root file system of an image, and its config."""

    root: Path
    config: ImageConfig


@dataclass(kw_only=True)
class NativeEngine:
    """See `Engine`. Images are kept until the run ends, and unpacked when they are to be run.

    `open_roots` raises EngineError if no program of an image can be run here.
    """

    open_roots: Callable[[], RootFolders]
    processes: ProcessGroup
    platform: Platform
    _images: dict[str, Content] = field(default_factory=dict)
    _unpacked: dict[Digest, _Unpacked] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def _roots(self) -> RootFolders:
        return self.open_roots()

    @cached_property
    def _folders(self) -> contextlib.ExitStack:
        """The folders of images; they are removed with this engine, or when the program ends."""
        stack = contextlib.ExitStack()
        weakref.finalize(self, stack.close)
        return stack

    @property
    def limits(self) -> tuple[str, ...]:
        """See `Engine.limits`."""
        return self._roots.confinement.limits

    def runs(self, platform: Platform) -> bool:
        """See `Engine.runs`. Programs run as on this machine."""
        return platform == Platform.of_this_machine()

    def check(self) -> None:
        """See `Engine.check`. Whether images can be run is seen when one is: a run may verify none."""

    def check_attestations(self) -> None:
        """See `Engine.check_attestations`. Only BuildKit makes them."""
        raise EngineError("without an engine, images get no attestations", hint=_BUILDKIT_ONLY)

    def build(self, request: BuildRequest, *, on_line: Callable[[str], None]) -> int:
        """See `Engine.build`. Only BuildKit builds Dockerfiles; images of layers need none."""
        raise EngineError("without an engine, no Dockerfile is built", hint=_BUILDKIT_ONLY)

    def load(self, content: Content, tag: ImageRef, platform: str) -> None:
        """See `Engine.load`."""
        self._images[str(tag)] = content

    def _unpack(self, image: str) -> _Unpacked:
        """Unpack an image. The base's layers, which have no key, are unpacked once for all images."""
        if self.platform != Platform.of_this_machine():
            raise EngineError(f"this machine cannot run images for {self.platform}", hint=_BUILDKIT_ONLY)
        content = self._find(image)
        body = content.manifest.body
        layers = [Digest.from_str(layer.digest) for layer in body.layers]
        first = next((n for n, layer in enumerate(body.layers) if LAYER_KEY in (layer.annotations or {})), len(layers))

        def fetch(digest: Digest) -> Path:
            with content.open_blob(digest) as blob:
                return Path(blob.name)

        above = tuple((str(fetch(layer)), "") for layer in layers[first:])
        folder = self._enter()
        with self._roots.kept(layers[:first], fetch) as base:
            task = Task(target=str(folder / "image"), source=str(base), layers=above, keep=True, report="")
            Path(task.target).mkdir()
            self._roots.do(task, folder, on_line=lambda _: None)
        return _Unpacked(root=Path(task.target, "root"), config=_config(content, image))

    def _enter(self) -> Path:
        with self._lock:
            return self._folders.enter_context(self._roots.scratch())

    def tag(self, image: str, name: str) -> None:
        """See `Engine.tag`."""
        self._images[name] = self._find(image)

    def find_image_id(self, image: str) -> str:
        """See `Engine.find_image_id`."""
        return str(self._find(image).manifest.digest)

    def find_image_config(self, image: str) -> ConfigSection:
        """See `Engine.find_image_config`."""
        return _config(self._find(image), image).config or ConfigSection()

    def read_file(self, image: str, path: str) -> bytes | None:
        """See `Engine.read_file`. Images are those of this run alone, and what is in them is known."""
        raise EngineError(f"without an engine, {image} is not read", hint=_BUILDKIT_ONLY)

    def save(self, image: str, path: Path) -> None:
        """See `Engine.save`. What was unpacked is not packed again."""
        raise EngineError(f"without an engine, {image} cannot be saved", hint=_BUILDKIT_ONLY)

    def _find(self, image: str) -> Content:
        if image not in self._images:
            hint = "start a Docker engine, which keeps images between runs"
            raise EngineError(f"image {image} was not built in this run", hint=hint)
        return self._images[image]

    @contextlib.contextmanager
    def volume(self, image: str, target: str, content: IO[bytes]) -> Iterator[str]:
        """See `Engine.volume`. A tar, which each run unpacks: it gets the volume unchanged."""
        if (digest := self._find(image).manifest.digest) not in self._unpacked:
            self._unpacked[digest] = self._unpack(image)
        with tempfile.NamedTemporaryFile(prefix="builder-") as file:
            shutil.copyfileobj(content, file, 1 << 20)
            file.flush()
            yield file.name

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
        found = self._unpacked[self._find(image).manifest.digest]
        section = found.config.config
        with self._roots.scratch() as scratch:
            output = scratch / "output"
            program = Program(
                argv=(*((section and section.entry_point) or ()), "sh", "-c", script),
                environment=found.config.environment,
                workdir=workdir,
                user=(section and section.user) or "",
                network=False,
                seconds=seconds,
                output=str(output),
            )
            task = Task(
                target=str(scratch / "root"), source=str(found.root), layers=((volume, target),), program=program,
                report="",
            )  # fmt: skip
            Path(task.target).mkdir()
            with followed_file(output, on_line):
                code = self._roots.do(task, scratch, on_line=lambda _: None)
            if code == _TIMED_OUT:
                return ContainerExit(exit_code=code, output=f"not done within {seconds:.0f} seconds")
            printed = output.with_name("output.err").read_bytes() + output.read_bytes()
        return ContainerExit(exit_code=code, output=printed.decode(errors="replace"))

    def stop(self) -> None:
        """See `Engine.stop`."""
        self.processes.stop()

    def raise_if_stopped(self) -> None:
        """See `Engine.raise_if_stopped`."""
        self.processes.raise_if_stopped()


def _config(content: Content, image: str) -> ImageConfig:
    fault = EngineError(f"{image} has no valid config")
    if content.manifest.body.config is None:
        raise fault
    with content.open_blob(Digest.from_str(content.manifest.body.config.digest)) as blob:
        return parse_or_raise(ImageConfig, blob.read(), fault)
