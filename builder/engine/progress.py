"""The progress of a build as of `docker buildx build --progress=rawjson`: parsed, and written where no buildx runs."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from pydantic import Base64Bytes

from builder.errors import EngineError
from builder.parse import Document, parse_or_raise

_STDOUT: Final = 1  # BuildKit's stream numbers are those of file descriptors
_MALFORMED: Final = EngineError("docker buildx printed progress in an unknown format", hint="update docker buildx")


class _VertexStatus(Document):
    digest: str
    name: str = ""
    started: str | None = None
    cached: bool = False
    error: str = ""


class _LogEntry(Document):
    vertex: str
    stream: int = 0
    data: Base64Bytes | None = None


class _TransferStatus(Document):
    id: str = ""
    vertex: str = ""
    current: int = 0
    total: int = 0


class _SolveStatus(Document):
    """The fields of BuildKit's SolveStatus (client/graph.go there) that builder reads."""

    vertexes: tuple[_VertexStatus, ...] | None = None
    logs: tuple[_LogEntry, ...] | None = None
    statuses: tuple[_TransferStatus, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Vertex:
    """A build step that began, or ended: with an error, or `error` empty."""

    digest: str
    name: str
    has_begun: bool
    is_cached: bool
    error: str


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """How much of something a build step has read or written, in bytes; the total is 0 if BuildKit does not know it."""

    vertex: str
    id: str
    current: int
    total: int


@dataclass(frozen=True, kw_only=True)
class StepOutput:
    """A piece of what a build step printed, on stdout or on stderr."""

    vertex: str
    data: bytes
    is_stdout: bool


@dataclass(kw_only=True)
class ProgressReader:
    """Parses the output of `--progress=rawjson`: SolveStatus objects in JSON, with buildx's own messages in between."""

    _object: list[str] = field(default_factory=list)

    def read(self, line: str) -> Iterator[Vertex | StepOutput | Transfer | str]:
        """Take one line; yield the events in it, or the line itself if it is not a JSON object.

        Raises EngineError if a JSON object has fields of other types than a SolveStatus.
        """
        if line == "{" or self._object:
            # buildx 0.13 indents its objects over many lines.
            self._object.append(line)
            if line != "}":
                return
            line, self._object = "".join(self._object), []
        if not (line.startswith("{") and line.endswith("}")):
            yield line
            return
        status = parse_or_raise(_SolveStatus, line, _MALFORMED)
        for vertex in status.vertexes or ():
            yield Vertex(
                digest=vertex.digest,
                name=vertex.name,
                has_begun=vertex.started is not None,
                is_cached=vertex.cached,
                error=vertex.error,
            )
        for entry in status.logs or ():
            yield StepOutput(vertex=entry.vertex, data=entry.data or b"", is_stdout=entry.stream == _STDOUT)
        for each in status.statuses or ():
            yield Transfer(vertex=each.vertex, id=each.id, current=each.current, total=each.total)


@dataclass(kw_only=True)
class ProgressWriter:
    """Writes steps, one after another, as `ProgressReader` reads them: a line of JSON for each event."""

    on_line: Callable[[str], None]
    _step: dict[str, str] = field(default_factory=dict)

    def begin(self, name: str) -> None:
        """A step begins."""
        self._step = {"digest": name, "name": name, "started": "now"}
        self._write({"vertexes": [self._step]})

    def print(self, line: str) -> None:
        """The step has printed a line."""
        data = base64.b64encode(f"{line}\n".encode()).decode("ascii")
        self._write({"logs": [{"vertex": self._step["digest"], "stream": _STDOUT, "data": data}]})

    def fail(self, error: str) -> None:
        """The step has failed."""
        self._write({"vertexes": [{**self._step, "error": error}]})

    def _write(self, status: dict[str, object]) -> None:
        self.on_line(json.dumps(status))
