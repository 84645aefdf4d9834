"""Publishes what a run made: pushes what the registry lacks, and moves the tags of all cells, all or none."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from builder.engine.protocol import Engine
from builder.errors import PublishError, listed
from builder.image.index import indexes_of
from builder.image.render import RenderedImage
from builder.layer.build import LayeredBuild
from builder.release.index import PublishedIndex
from builder.release.journal import Promotion, journal_of
from builder.release.promote import Named, PlannedImage, Promotable, plan_moves
from builder.release.publisher import Publisher
from builder.release.state import RegistryState
from builder.run import CellResult, engine_content
from builder.verify.inside import Check
from builder.verify.record import find_verified

PromoteMode = Literal["all", "passed", "none"]
Make = Callable[[Sequence[RenderedImage]], tuple[CellResult, ...]]


@dataclass(frozen=True, kw_only=True)
class Publication:
    """The outcome of a run: its cells, and the promotion; None if no tag had to be moved, or none was allowed to."""

    results: tuple[CellResult, ...]
    promotion: Promotion | None = None


def build_and_publish(
    states: Sequence[RegistryState], make: Make, publisher: Publisher, *, promote: PromoteMode
) -> Publication:
    """Make the cells that the registry lacks, then move the tags; `promote` selects the cells whose tags move.

    `make` is called only if a cell is missing. Raises PublishError if tags were moved in part, or by somebody else.
    """
    missing = [state.rendered for state in states if state.image is None]
    made = {result.rendered.key: result for result in make(missing)} if missing else {}
    results = tuple(made.get(state.rendered.key) or _registered(state) for state in states)
    promotion = None
    if promote == "passed" or (promote == "all" and all(result.error is None for result in results)):
        promotion = _promote([result.published for result in results if result.published], states, publisher)
    return Publication(results=results, promotion=promotion)


def push_verified(
    states: Sequence[RegistryState], engine: Engine, records: Path, layered: LayeredBuild, publisher: Publisher
) -> Publication:
    """Push the images that an earlier run built and verified, and move the tags of all cells.

    Raises PublishError if a cell is neither in the registry nor, verified, in the engine.
    """
    results, missing = [], []
    for state in states:
        if state.image is not None:
            results.append(_registered(state))
        elif image := find_verified(state.rendered, engine, records):
            with tempfile.TemporaryDirectory(prefix="builder-") as scratch:
                published = publisher.push(image, engine_content(image, engine, layered, Path(scratch)))
            results.append(CellResult(rendered=state.rendered, outcome="pushed", published=published))
        else:
            missing.append(state.rendered.immutable_tag.familiar)
    _require_all(missing, "in the registry or, verified, in the engine")
    images = [result.published for result in results if result.published]
    return Publication(results=tuple(results), promotion=_promote(images, states, publisher))


def promote_registered(
    states: Sequence[RegistryState], publisher: Publisher, checks: Mapping[str, tuple[Check, ...]]
) -> Publication:
    """Move the tags of all cells to images in the registry; raise PublishError if one is not there.

    `checks` are the results with which jobs verified some of the images just now, by key.
    """
    _require_all([state.rendered.immutable_tag.familiar for state in states if state.image is None], "in the registry")
    images = [state.image for state in states if state.image]
    results = tuple(replace(_registered(state), checks=checks.get(state.rendered.key, ())) for state in states)
    return Publication(results=results, promotion=_promote(images, states, publisher))


def _require_all(missing: Sequence[str], where: str) -> None:
    if missing:
        raise PublishError(f"not {where}: {listed(missing)}; no tag was moved", hint="run `builder build --push`")


def _promote(
    images: Sequence[Promotable | PlannedImage], states: Sequence[RegistryState], publisher: Publisher
) -> Promotion | None:
    """Move the images' moving tags, all or none; None if no tag has to move."""
    moves = plan_moves(_named(images, states, publisher), states)
    if not moves:
        return None
    plan = images[0].rendered.plan
    return publisher.move(journal_of(plan.repository, plan.branch), moves)


def _named(
    images: Sequence[Promotable | PlannedImage], states: Sequence[RegistryState], publisher: Publisher
) -> Iterator[Named]:
    """What moving tags are to name: each image, but of cells with several platforms the index, if it is complete."""
    yield from (image for image in images if not image.rendered.plan.cell.platforms)
    digests = {image.rendered.key: image.digest for image in images}
    registered = {state.rendered.key: state for state in states if state.status == "up-to-date"}
    for index in indexes_of(image.rendered for image in images if isinstance(image.rendered, RenderedImage)):
        state = registered.get(index.images[0].key)
        found = [digest for image in index.images if (digest := digests[image.key])]
        if state and state.index:
            yield PublishedIndex(rendered=index, digest=state.index)
        elif len(found) < len(index.images):
            yield PlannedImage(rendered=index)
        else:
            yield publisher.put_index(index, found)


def _registered(state: RegistryState) -> CellResult:
    return CellResult(rendered=state.rendered, outcome="up-to-date", published=state.image)
