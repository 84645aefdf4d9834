"""A job of a GitLab pipeline as it runs, and the variables in its texts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from builder.gitlab.adopt.node import Collection, Node, Scalar, Slot

GLOBAL_KEYWORDS: Final = frozenset(
    {"default", "include", "stages", "types", "variables", "workflow", "image", "services", "cache", "before_script",
     "after_script", "spec"}
)  # fmt: skip
SCRIPTS: Final = ("before_script", "script", "after_script")
STORES: Final = ("cache", "artifacts")
CONTENT_KEYS: Final = frozenset({"paths", "untracked", "reports"})  # the keys that give caches and artifacts content
_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_NAMED: Final = re.compile(rf"{_VARIABLE.pattern}|%(\w+)%")


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """A line of a script, and the keyword of that script; `slot` is None if the script is a single text."""

    scalar: Scalar
    script: str
    slot: Slot | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A job as it runs.

    `image` is None if it sets none. `missing_bases` are the jobs it extends that are not in the files that were read.
    `is_partial` says that its script may be in such a file: a job that only changes one of a template. `stores` are its
    caches and artifacts, each as the mappings that are merged into it. `inherited` has the definitions of each keyword,
    the effective one first. `variable_sets` are the values that its variables can have: one for each combination of
    its matrix, its rules, and the options of prefilled variables.
    """

    name: str
    slot: Slot
    stage: str
    image: Scalar | None
    is_trigger: bool
    is_partial: bool
    missing_bases: tuple[str, ...]
    lines: tuple[Line, ...]
    stores: tuple[tuple[Collection, ...], ...]
    inherited: Mapping[str, tuple[Slot, ...]]
    variables: Mapping[str, Slot]
    variable_sets: tuple[Mapping[str, str], ...]


def variables_in(text: str) -> set[str]:
    """The names of the variables that a text expands, including `%NAME%`."""
    return {name for names in _NAMED.findall(text) for name in names if name}


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Expand `$NAME` and `${NAME}`, also nested; unknown names are left as they are."""
    for _ in range(10):
        expanded = _VARIABLE.sub(lambda match: variables.get(match[1] or match[2], match[0]), text)
        if expanded == text:
            break
        text = expanded
    return text


def scalars(node: Node) -> Iterator[Scalar]:
    """The node itself if it is a scalar, or the scalars of a list."""
    if isinstance(node, Scalar):
        yield node
    elif isinstance(node, Collection) and not node.is_mapping:
        yield from (slot.value for slot in node.slots if isinstance(slot.value, Scalar))
