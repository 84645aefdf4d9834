"""What the stages need of an engine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from builder.engine.buildx import BuildRequest


@dataclass(frozen=True, kw_only=True)
class ContainerExit:
    """How a container ended: its exit code and what it printed, stderr before stdout."""

    exit_code: int
    output: str


class Engine(Protocol):
    """What the stages need of an engine."""

    def check(self) -> None:
        """Raise EngineError unless the engine answers and can build."""

    def check_attestations(self) -> None:
        """Raise EngineError unless the engine's store keeps attestations."""

    def build(self, request: BuildRequest, *, on_line: Callable[[str], None]) -> int:
        """Build into the engine's image store; hand over each line of progress (JSON), return the exit code."""

    def tag(self, image: str, name: str) -> None:
        """Give an image another name."""

    def find_image_id(self, image: str) -> str:
        """The id of an image in the store, `sha256:…`; raise EngineError where it is not there."""

    def save(self, image: str, path: Path) -> None:
        """Write the image as a tar."""

    def volume(self, image: str, target: str, content: IO[bytes]) -> contextlib.AbstractContextManager[str]:
        """A new volume filled from a tar, as the image sees it at `target`; removed at the end."""

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
        """Run a shell script in a new container without a network, as a CI runner does; remove the container."""

    def stop(self) -> None:
        """End everything that runs, and let nothing new start."""
