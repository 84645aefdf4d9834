"""What an engine tells of the layers of an image in its store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pydantic import Field

from builder.errors import BuilderError
from builder.parse import Document, fields_or_raise

_OWN: Final = "builder: "  # as `builder.layer.assemble` titles layers


@dataclass(frozen=True, kw_only=True)
class EngineLayer:
    """A layer: what made it, as the image's history says, and its unpacked size in bytes."""

    title: str
    size: int


class _Step(Document):
    created_by: str = Field("", alias="CreatedBy")
    size: int = Field(0, alias="Size")


class _History(Document):
    steps: list[_Step]


def layers_in(answer: Any, fault: BuilderError) -> tuple[EngineLayer, ...]:
    """Read the answer to `GET /images/{name}/history` (Docker Engine API); return the layers, the lowest first.

    It does not tell steps with a layer from those that only set something: those have no size. Raises the fault.
    """
    steps = fields_or_raise(_History, {"steps": answer}, fault).steps
    found = [step for step in reversed(steps) if step.size > 0 or step.created_by.startswith(_OWN)]
    return tuple(EngineLayer(title=step.created_by, size=step.size) for step in found)
