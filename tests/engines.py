"""An engine that replays the output of a build."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NoReturn

from builder.engine.buildx import BuildRequest
from builder.engine.protocol import ContainerExit, ignore_line
from builder.matrix.model import Platform
from builder.oci.loopback import Content
from builder.oci.manifest import ConfigSection
from builder.oci.reference import ImageRef
from tests import archives

DIGEST = "sha256:" + "d1" * 32
LAYER = archives.layer({"opt/x": b"x"})


def _unused() -> NoReturn:
    raise AssertionError("a build needs no more of its engine than build and save")


@dataclass(kw_only=True)
class Recording:
    """Prints the lines, returns the exit code, and has an image with one layer. See `Engine`."""

    lines: Sequence[str]
    exit_code: int = 0
    requests: list[BuildRequest] = field(default_factory=list)
    contexts: list[dict[str, bytes]] = field(default_factory=list)
    limits: tuple[str, ...] = ()

    def build(self, request: BuildRequest, *, on_line: Callable[[str], None]) -> int:
        """Record the request, and replay the output."""
        self.requests.append(request)
        files = (path for path in request.context.rglob("*") if path.is_file())
        self.contexts.append({path.relative_to(request.context).as_posix(): path.read_bytes() for path in files})
        for line in self.lines:
            on_line(line)
        if not self.exit_code:
            assert request.metadata
            request.metadata.write_text(json.dumps({"containerimage.digest": DIGEST}), encoding="utf-8")
        return self.exit_code

    def save(self, image: str, path: Path) -> None:
        """Write the image with one layer."""
        assert image == self.requests[-1].tag
        archives.oci(path, LAYER)

    def runs(self, platform: Platform) -> bool:
        """Whatever it is."""
        return True

    def check(self) -> None:
        """Not used."""
        _unused()

    def check_attestations(self) -> None:
        """Not used."""
        _unused()

    def load(self, content: Content, tag: ImageRef, platform: str) -> None:
        """Not used."""
        _unused()

    def tag(self, image: str, name: str) -> None:
        """Not used."""
        _unused()

    def find_image_id(self, image: str) -> str:
        """Not used."""
        _unused()

    def find_image_config(self, image: str) -> ConfigSection:
        """Not used."""
        _unused()

    def read_file(self, image: str, path: str) -> bytes | None:
        """Not used."""
        _unused()

    def volume(self, image: str, target: str, content: IO[bytes]) -> contextlib.AbstractContextManager[str]:
        """Not used."""
        _unused()

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
        """Not used."""
        _unused()

    def stop(self) -> None:
        """Not used."""
        _unused()

    def raise_if_stopped(self) -> None:
        """Not used."""
        _unused()
