"""Remove dependencies from caches and artifacts: what the image has need not be carried from job to job."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Final

from builder.gitlab.adopt.draft import Draft, variable_values
from builder.gitlab.adopt.job import Job
from builder.gitlab.adopt.node import Alias, Collection, Node, Scalar, Slot
from builder.gitlab.adopt.script import in_project

_CACHE_VARIABLES: Final = frozenset({"PIP_CACHE_DIR", "UV_CACHE_DIR"})
_DEPENDENCY_PATHS: Final = frozenset({
    ".cache/pip", ".cache/uv", ".uv-cache", ".pip-cache", "venv", ".venv",
    "~/.cache/pip", "~/.cache/uv",
})  # fmt: skip


def drop_stores(draft: Draft) -> None:
    """Remove dependencies from caches and artifacts."""
    users: dict[Collection, list[Job]] = {}
    for job in draft.jobs:
        for group in job.stores:
            for member in group:
                users.setdefault(member, []).append(job)
    proposals: list[tuple[Set[Slot], Collection]] = []
    for store, store_users in sorted(users.items(), key=lambda pair: draft.pipeline.position(pair[0])):
        baked = [job for job in store_users if job in draft.baked]
        dependencies = {slot for slot in _paths(store) if baked and _is_dependency(slot.value, baked[0], draft)}
        if dependencies and (blocked := draft.reason_to_keep(store_users)):
            draft.remark(store, store_users[0], f"its cache or artifacts stay: {blocked}", kind="stays")
        elif dependencies:
            proposals.append((dependencies, store))
    for store, reason in draft.remove_each(proposals):
        draft.remark(store, users[store][0], f"its cache or artifacts stay: {reason}", kind="stays")


def _paths(store: Collection) -> Iterator[Slot]:
    """The items of `paths` of a cache or of artifacts; an alias is followed to its anchor."""
    for slot in store.slots:
        value = slot.value.target if isinstance(slot.value, Alias) else slot.value
        if slot.name == "paths" and isinstance(value, Collection) and not value.is_mapping:
            yield from value.slots


def _is_dependency(node: Node, job: Job, draft: Draft) -> bool:
    """Whether a path contains installed or downloaded packages and nothing else."""
    if not isinstance(node, Scalar):
        return False
    values = variable_values(job)
    path = in_project(node.value, values)
    paths = {name: in_project(value, values) for name, value in values.items()}
    if path in {
        *_DEPENDENCY_PATHS,
        *(draft.venvs - draft.kept_venvs),
        *(paths[name] for name in _CACHE_VARIABLES & paths.keys()),
    }:
        return True
    inner = {name for name, other in paths.items() if f"{other}/".startswith(f"{path}/")}
    return bool(inner) and inner <= _CACHE_VARIABLES
