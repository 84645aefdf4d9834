"""The interface of engines, which build images and run containers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from builder.engine.buildx import BuildRequest
from builder.matrix.model import Platform
from builder.oci.loopback import Content
from builder.oci.manifest import ConfigSection
from builder.oci.reference import ImageRef


@dataclass(frozen=True, kw_only=True)
class ContainerExit:
    """A container that ended: its exit code, and its output, stderr before stdout."""

    exit_code: int
    output: str


def ignore_line(_: str) -> None:
    """Nobody watches."""


class Engine(Protocol):
    """Builds images, keeps them, and runs containers. Every method raises EngineError if the engine fails."""

    @property
    def limits(self) -> tuple[str, ...]:
        """What containers have here that they should not, in words for a report; nothing for a real engine."""

    def runs(self, platform: Platform) -> bool:
        """Whether images for the platform can be run here, on such a machine or by emulation."""

    def check(self) -> None:
        """Raise EngineError unless the engine runs and can build."""

    def check_attestations(self) -> None:
        """Raise EngineError unless the engine can store attestations."""

    def build(self, request: BuildRequest, *, on_line: Callable[[str], None]) -> int:
        """Build into the engine's image store; pass each line of progress (JSON) to `on_line`; return the exit code."""

    def load(self, content: Content, tag: ImageRef, platform: str) -> None:
        """Take an image into the store under a tag; an engine that can asks only for the blobs that it lacks."""

    def tag(self, image: str, name: str) -> None:
        """Give an image, named by tag or id, another tag."""

    def find_image_id(self, image: str) -> str:
        """Look up the id of an image in the store, `sha256:…`; raise EngineError if it is not there."""

    def find_image_config(self, image: str) -> ConfigSection:
        """Look up what an image in the store sets for containers; raise EngineError if it is not there."""

    def read_file(self, image: str, path: str) -> bytes | None:
        """Read a small file of an image; None if it has no such file."""

    def save(self, image: str, path: Path) -> None:
        """Write an image to a tar (see `builder.oci.archive`)."""

    def volume(self, image: str, target: str, content: IO[bytes]) -> contextlib.AbstractContextManager[str]:
        """Create a volume with the content of a tar, for mounting at `target`; yield its name; remove it at the end."""

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
        """Run a shell script in a new container, as a CI runner does but without a network; remove the container.

        After `seconds` the container is stopped, with exit code 124. `on_line` gets lines of its stdout as they come,
        from another thread, and as far as the engine shows them.
        """

    def stop(self) -> None:
        """Stop everything that runs, and prevent further starts."""

    def raise_if_stopped(self) -> None:
        """Raise InterruptedRun after `stop`, for work that takes seconds without the engine."""
