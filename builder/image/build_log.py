"""A build's progress as a readable log, and as steps for whoever watches."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Final

from builder.engine.progress import ProgressReader, StepOutput, Vertex
from builder.process import redact

# BuildKit repeats the whole script of a RUN before its exit code.
_SCRIPT: Final = re.compile(r'^process ".*" did not complete successfully: ', re.DOTALL)


@dataclass(kw_only=True)
class BuildLog:
    """Reads the progress of a build into a readable log."""

    file: IO[str]
    packages: int
    on_step: Callable[[str], None]
    names: dict[str, str] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    begun_lines: dict[str, bytes] = field(default_factory=dict)
    tails: dict[str, list[str]] = field(default_factory=dict)
    failed: list[tuple[str, str]] = field(default_factory=list)
    plain: list[str] = field(default_factory=list)
    progress: ProgressReader = field(default_factory=ProgressReader)

    def read(self, line: str) -> None:
        """Take one line of progress; what is not JSON is buildx speaking for itself."""
        for news in self.progress.read(line):
            if isinstance(news, Vertex):
                self._read_vertex(news)
            elif isinstance(news, StepOutput):
                self._read_output(news.vertex, news.data)
            else:
                self.plain.append(news)
                self._write(news)

    def _read_vertex(self, vertex: Vertex) -> None:
        self.names[vertex.digest] = vertex.name
        if vertex.has_begun and vertex.digest not in self.begun:
            self.begun.add(vertex.digest)
            self._write(f"=== {vertex.name}{' (cached)' if vertex.is_cached else ''}")
            step = _step(vertex.name, self.packages)
            if step:
                self.on_step(step)
        if vertex.error:
            error = _SCRIPT.sub("", vertex.error)
            self.failed.append((vertex.digest, error))
            self._write(f"=== {vertex.name}: {error}")

    def _read_output(self, digest: str, data: bytes) -> None:
        # A program that does not buffer sends its lines in pieces.
        *whole, self.begun_lines[digest] = (self.begun_lines.get(digest, b"") + data).split(b"\n")
        for line in whole:
            self._read_line(digest, line.decode(errors="replace").rstrip())

    def _read_line(self, digest: str, text: str) -> None:
        self._write(f"    {text}")
        if text.strip():
            self.tails.setdefault(digest, []).append(text)
        done = re.match(r"(Prepared|Installed|Bytecode compiled) \d+ (package|file)s?", text)
        if done and _step(self.names.get(digest, ""), self.packages):
            self.on_step(text.partition(" in ")[0].lower())

    def finish(self) -> None:
        """Take what ended without a line break."""
        for digest in [digest for digest, line in self.begun_lines.items() if line]:
            self._read_output(digest, b"\n")

    def failure_text(self) -> str:
        """What the failing step printed last, or else buildx's own error."""
        for digest, error in self.failed:
            tail = "\n    ".join(self.tails.get(digest, [])[-8:])
            step = _step(self.names[digest], self.packages) or self.names[digest]
            return f"{step} failed: {error}" + (f"\n    {tail}" if tail else "")
        return "\n    ".join(line for line in self.plain[-8:] if line.strip())

    def _write(self, text: str) -> None:
        self.file.write(redact(text) + "\n")
        self.file.flush()


def _step(vertex: str, packages: int) -> str:
    """A vertex's name in plain words; empty for those that are no news."""
    words = {
        "pylock.toml": f"install {packages} packages",
        "RUN --mount": "install system packages",
        "RUN <<": "compile the standard library",
        "COPY": "copy uv",
        "[context": "fetch base and uv",
        "FROM": "fetch base and uv",
        "exporting to": "write the layers",
        "importing to docker": "load into the engine",
    }
    return next((text for start, text in words.items() if start in vertex and "[internal]" not in vertex), "")
