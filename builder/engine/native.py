"""An engine that is no program: images are unpacked into folders, and containers are processes with such a root."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
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
from builder.rootfs.stack import MisfitError
from builder.rootfs.task import Program, Task

_TIMED_OUT: Final = 124
_BUILDKIT_ONLY: Final = "name a BuildKit with --builder, or start a Docker engine"


@dataclass(kw_only=True)
class NativeEngine:
    """See `Engine`. Images are kept until the run ends; layers are unpacked when an image is to be run, and stay.

    `open_roots` raises EngineError if no program of an image can be run here.
    """

    open_roots: Callable[[], RootFolders]
    processes: ProcessGroup
    platform: Platform
    _images: dict[str, Content] = field(default_factory=dict)

    @cached_property
    def _roots(self) -> RootFolders:
        return self.open_roots()

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

    @contextlib.contextmanager
    def _trees(self, content: Content, *, merged: bool = False) -> Iterator[tuple[Path, ...]]:
        """Yield the trees of an image; with `merged`, one of all its layers. The base's layers have no key."""
        body = content.manifest.body
        layers = [Digest.from_str(layer.digest) for layer in body.layers]
        first = next((n for n, layer in enumerate(body.layers) if LAYER_KEY in (layer.annotations or {})), len(layers))

        def fetch(digest: Digest) -> Path:
            with content.open_blob(digest) as blob:
                return Path(blob.name)

        if merged:
            with self._roots.kept(layers, fetch) as tree:
                yield (tree,)
        else:
            with self._roots.stacked(layers[:first], layers[first:], fetch) as trees:
                yield trees

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
        if self.platform != Platform.of_this_machine():
            raise EngineError(f"this machine cannot run images for {self.platform}", hint=_BUILDKIT_ONLY)
        content = self._find(image)
        config = _config(content, image)
        section = config.config or ConfigSection()
        program = Program(
            argv=(*(section.entry_point or ()), "sh", "-c", script), environment=config.environment, workdir=workdir,
            user=section.user or "", network=False, seconds=seconds,
        )  # fmt: skip
        try:
            with self._trees(content) as trees:
                return self._run(program, trees, (volume, target), on_line)
        except MisfitError:
            with self._trees(content, merged=True) as trees:
                return self._run(program, trees, (volume, target), on_line)

    def _run(
        self, program: Program, trees: Sequence[Path], volume: tuple[str, str], on_line: Callable[[str], None]
    ) -> ContainerExit:
        with self._roots.scratch() as scratch:
            root, output = scratch / "root", scratch / "output"
            root.mkdir()
            task = Task(
                target=str(root), trees=[*map(str, trees)], layers=[volume],
                program=replace(program, output=str(output)), report="",
            )  # fmt: skip
            with followed_file(output, on_line):
                code = self._roots.do(task, scratch)
            if code == _TIMED_OUT:
                return ContainerExit(exit_code=code, output=f"not done within {program.seconds or 0:.0f} seconds")
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
