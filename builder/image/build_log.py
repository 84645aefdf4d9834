"""Turns the progress of a build into a readable log and a few named steps."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Final

from builder.engine.buildx import WITHOUT_CACHE
from builder.engine.progress import ProgressReader, StepOutput, Transfer, Vertex
from builder.errors import counted
from builder.redaction import redact

# What make_layers.py prints before the steps' own output, and when one failed.
_TITLE: Final = "builder: "
_FAILED: Final = "builder: failed: "

# Warnings of uv that say nothing about a failure.
_NOISE: Final = re.compile(r"^warning: .*(\bexperimental\b|preview-features|does not contain any dependencies)")
_TRACEBACK: Final = "Traceback (most recent call last):"
_BUILD_SYSTEMS: Final = "cache the build systems"

_MEGABYTE: Final = 1_000_000

# BuildKit repeats the whole script of a RUN before its exit code.
_SCRIPT: Final = re.compile(r'^process ".*" did not complete successfully: ', re.DOTALL)


@dataclass(kw_only=True)
class BuildLog:
    """Writes the progress of a build to a log, reports its steps, and collects the reason of a failure."""

    file: IO[str]
    packages: int
    on_step: Callable[[str], None]
    names: dict[str, str] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    partial_lines: dict[str, bytes] = field(default_factory=dict)
    tails: dict[str, list[str]] = field(default_factory=dict)
    failed: list[tuple[str, str]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)  # of buildx itself
    titles: dict[str, str] = field(default_factory=dict)
    transfers: dict[str, dict[str, tuple[int, int]]] = field(
        default_factory=dict
    )  # bytes done and all, by vertex and id
    progress: ProgressReader = field(default_factory=ProgressReader)

    def read(self, line: str) -> None:
        """Take one line of progress: a SolveStatus in JSON, or a message of buildx itself."""
        for event in self.progress.read(line):
            if isinstance(event, Vertex):
                self._read_vertex(event)
            elif isinstance(event, StepOutput):
                self._read_output(event.vertex, event.data)
            elif isinstance(event, Transfer):
                self._read_transfer(event)
            else:
                self.messages.append(event)
                self._write(event)
                if event == WITHOUT_CACHE:
                    self._forget()

    def _forget(self) -> None:
        """Begin anew, as the build does: what failed before is not its result."""
        for state in (
            self.names,
            self.begun,
            self.partial_lines,
            self.tails,
            self.failed,
            self.messages,
            self.titles,
            self.transfers,
        ):
            state.clear()

    def _read_vertex(self, vertex: Vertex) -> None:
        self.names[vertex.digest] = vertex.name
        if vertex.has_begun and vertex.digest not in self.begun:
            self.begun.add(vertex.digest)
            self._write(f"=== {vertex.name}{' (cached)' if vertex.is_cached else ''}")
            step = _step_name(vertex.name, self.packages)
            if step:
                self.on_step(step)
        if vertex.error:
            error = _SCRIPT.sub("", vertex.error)
            self.failed.append((vertex.digest, error))
            self._write(f"=== {vertex.name}: {error}")

    def _read_transfer(self, event: Transfer) -> None:
        """Tell how many bytes of a step are done, from a megabyte on: `write the layers 96 MB`."""
        self.transfers.setdefault(event.vertex, {})[event.id] = (event.current, event.total)
        found = self.transfers[event.vertex].values()
        done, total = (sum(sizes) for sizes in zip(*found, strict=True))
        step = _step_name(self.names.get(event.vertex, ""), self.packages)
        if step and max(done, total) >= _MEGABYTE:
            self.on_step(f"{step} {bytes_done(done, total)}")

    def _read_output(self, digest: str, data: bytes) -> None:
        # A program without output buffering sends lines in pieces.
        *lines, self.partial_lines[digest] = (self.partial_lines.get(digest, b"") + data).split(b"\n")
        for line in lines:
            self._read_line(digest, line.decode(errors="replace").rstrip())

    def _read_line(self, digest: str, text: str) -> None:
        self._write(f"    {text}")
        if text.startswith(_FAILED):
            return
        if text.startswith(_TITLE):
            self.titles[digest] = text.removeprefix(_TITLE)
            self.tails[digest] = []
            self.on_step(self.titles[digest])
        elif text.strip() and not _NOISE.match(text):
            self.tails.setdefault(digest, []).append(text)
        summary = re.match(r"(Prepared|Installed|Bytecode compiled) \d+ (package|file)s?", text)
        if summary and (digest in self.titles or _step_name(self.names.get(digest, ""), self.packages)):
            self.on_step(text.partition(" in ")[0].lower())

    def finish(self) -> None:
        """Log the last lines that have no line break."""
        for digest in [digest for digest, line in self.partial_lines.items() if line]:
            self._read_output(digest, b"\n")

    def failure_text(self) -> str:
        """The last lines of the failed step, or else of buildx's own messages; empty if there are none."""
        for digest, error in self.failed:
            tail = "\n    ".join(_without_frames(self.tails.get(digest, []))[-8:])
            step = self.titles.get(digest) or _step_name(self.names[digest], self.packages) or self.names[digest]
            return f"{step} failed: {error}" + (f"\n    {tail}" if tail else "")
        return "\n    ".join(line for line in self.messages[-8:] if line.strip())

    @property
    def advice(self) -> str:
        """What to do about the failed step; '' if that depends on what it printed."""
        titles = [self.titles.get(digest) for digest, _ in self.failed]
        if _BUILD_SYSTEMS not in titles:
            return ""
        return "correct the requires of [build-system] in the project's pyproject.toml, or in that of a member"

    def _write(self, text: str) -> None:
        self.file.write(redact(text) + "\n")
        self.file.flush()


def _without_frames(lines: Sequence[str]) -> list[str]:
    """The lines without the frames of Python's tracebacks; their exceptions stay, and the log has all of it."""
    kept: list[str] = []
    depth: int | None = None  # how far the traceback is indented that goes on
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if line.strip() == _TRACEBACK:
            depth = indent
        elif depth is None or indent <= depth:
            depth = None
            kept.append(line)
    return kept


def bytes_done(done: int, total: int) -> str:
    """How many bytes are done, and of how many if that is known: `96/189 MB`."""
    return f"{done / 1e6:.0f}{f'/{total / 1e6:.0f}' if total >= done else ''} MB"


def _step_name(vertex: str, packages: int) -> str:
    """The step that a vertex belongs to, for users; empty for internal ones."""
    steps = {
        "make_layers.py": "",  # it prints the titles of its own steps
        "unpack base and uv": "unpack base and uv",
        "pylock.toml": f"install {counted(packages, 'package')}",
        "RUN --mount": "install system packages",
        "RUN <<": "compile the standard library",
        "COPY": "copy uv",
        "[context": "fetch base and uv",
        "FROM": "fetch base and uv",
        "exporting to": "write the layers",
        "importing to docker": "load into the engine",
    }
    return next((step for sign, step in steps.items() if sign in vertex and "[internal]" not in vertex), "")
