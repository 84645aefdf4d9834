"""The progress of `docker buildx build`, read from `--progress=rawjson`."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Vertex:
    """ProgressEvent of a step: it began, or ended, with an error or without."""

    digest: str
    name: str
    has_begun: bool
    is_cached: bool
    error: str


@dataclass(frozen=True, kw_only=True)
class StepOutput:
    """Something that a step printed, on stdout or else on stderr."""

    vertex: str
    data: bytes
    is_stdout: bool


@dataclass(kw_only=True)
class ProgressReader:
    """Reads `--progress=rawjson`: BuildKit's SolveStatus as JSON objects, and between them buildx's own words."""

    _object: list[str] = field(default_factory=list)

    def read(self, line: str) -> Iterator[Vertex | StepOutput | str]:
        """Take one line and yield the news in it, if any; what is not JSON comes back as it is."""
        if line == "{" or self._object:
            # buildx 0.13 writes its objects indented, over many lines.
            self._object.append(line)
            if line != "}":
                return
            line, self._object = "".join(self._object), []
        status = _status(line)
        if status is None:
            yield line
            return
        for vertex in status.get("vertexes") or ():
            yield Vertex(
                digest=vertex["digest"],
                name=vertex.get("name", ""),
                has_begun=bool(vertex.get("started")),
                is_cached=bool(vertex.get("cached")),
                error=vertex.get("error", ""),
            )
        for entry in status.get("logs") or ():
            data = base64.b64decode(entry["data"])
            yield StepOutput(vertex=entry["vertex"], data=data, is_stdout=entry.get("stream") == 1)


def _status(line: str) -> Mapping[str, Any] | None:
    try:
        status = json.loads(line)
    except ValueError:
        return None
    return status if isinstance(status, dict) else None
