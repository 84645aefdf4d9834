"""The nodes of a YAML document, each with its position in the text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, eq=False)
class Scalar:
    """A scalar; `body` is where its text begins after anchor and tag, `style` its quote, `|`, `>` or nothing."""

    start: int
    end: int
    body: int
    value: str
    style: str
    tag: str | None
    anchor: str | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Alias:
    """`*name`, and the node it stands for."""

    start: int
    end: int
    name: str
    target: Scalar | Collection


@dataclass(frozen=True, kw_only=True, eq=False)
class Collection:
    """A mapping or a sequence, in block or flow style."""

    start: int
    end: int
    slots: tuple[Slot, ...]
    is_mapping: bool
    is_flow: bool
    tag: str | None
    anchor: str | None


Node = Scalar | Alias | Collection


@dataclass(frozen=True, kw_only=True, eq=False)
class Slot:
    """A place in a collection: an entry of a mapping, or an item of a sequence, which has no key."""

    key: Node | None
    value: Node

    @property
    def start(self) -> int:
        """Where it begins in the text; an item begins after its dash."""
        return self.key.start if self.key else self.value.start

    @property
    def end(self) -> int:
        """Where it ends in the text."""
        return self.value.end

    @property
    def name(self) -> str:
        """Its key as text; '' for items, and for keys that are not scalars."""
        return self.key.value if isinstance(self.key, Scalar) else ""


def walk(node: Node) -> Iterator[Collection]:
    """The node and the collections inside it; aliases are not followed."""
    if isinstance(node, Collection):
        yield node
        for slot in node.slots:
            yield from walk(slot.value)
