"""Fetches what the pages show: images and journal from the registry, and what the next run would change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from builder.contract import INPUTS_LABEL
from builder.errors import RegistryError, UsageError
from builder.image.inputs import ImageInputs, input_changes
from builder.image.render import RenderedImage
from builder.oci.manifest import ImageConfig, Manifest
from builder.oci.reference import Digest, ImageRef
from builder.oci.registry import Registries
from builder.pages.model import CellPage, HistoryRow, PublishedPage, Site
from builder.release.contents import fetch_contents
from builder.release.immutable import checks_of, pushed_at
from builder.release.journal import Promotion, fetch_settled_journal, journal_of
from builder.release.state import Explanation, fetch_explanations, fetch_image_config, fetch_image_manifest
from builder.verify.handover import read_checks
from builder.verify.inside import Check


def fetch_site(
    rendered: Sequence[RenderedImage], registries: Registries, *, promotions: int, results: Path | None, at: datetime
) -> Site:
    """Fetch the cells' images, and the latest promotions with what each of them changed.

    `results` is the folder with what jobs wrote that verified images. Raises RegistryError.
    """
    plan = rendered[0].plan
    journal = fetch_settled_journal(journal_of(plan.repository, plan.branch), registries)[:promotions]
    inputs = _fetch_inputs(plan.repository, journal, registries)
    history = tuple(_rows(promotion, inputs) for promotion in journal)
    explanations = fetch_explanations(rendered, registries)

    def page(image: RenderedImage) -> CellPage:
        return _fetch_page(image, explanations[image.plan.cell.name], history, results, registries)

    cells = tuple(registries.map(page, rendered))
    return Site(repository=plan.repository.familiar, at=at, cells=cells, promotions=history)


def _fetch_page(
    image: RenderedImage,
    explanation: Explanation,
    history: Sequence[Sequence[HistoryRow]],
    results: Path | None,
    registries: Registries,
) -> CellPage:
    cell = image.plan.cell
    tags = tuple(str(tag.tag) for tag in image.moving_tags)
    return CellPage(
        name=cell.name,
        python=cell.python,
        column=cell.name.removeprefix(f"{cell.python}-"),
        platform=str(cell.platform),
        tags=tags,
        status=explanation.status,
        reasons=explanation.reasons,
        image=_fetch_image(image, results, registries),
        history=tuple(row for rows in history for row in rows if row.tag in tags),
    )


def _fetch_image(rendered: RenderedImage, results: Path | None, registries: Registries) -> PublishedPage | None:
    """The image that the cell's tag names; None if there is none, or builder did not make it."""
    tag, platform = rendered.moving_tags[0], rendered.plan.cell.platform
    named = registries.fetch_manifest(tag)
    manifest = fetch_image_manifest(tag, registries, platform) if named else None
    if named is None or manifest is None:
        return None
    try:
        contents = fetch_contents(tag.with_digest(manifest.digest).without_tag(), registries)
    except UsageError:
        return None
    inputs = contents.inputs
    settings = {"python": inputs.python, "base": inputs.base, "uv": inputs.uv, **inputs.settings}
    return PublishedPage(
        contents=contents,
        digest=str(named.digest),
        made=pushed_at(manifest) or pushed_at(named),
        settings={name: value for name, value in settings.items() if value not in {"", "{}"}},
        checks=_checks((manifest, named), rendered, results),
    )


def _checks(manifests: Sequence[Manifest], rendered: RenderedImage, results: Path | None) -> tuple[Check, ...]:
    """The results of an image's checks: those that a job wrote about this very image, else those pushed with it.

    The image is one of the manifests; the others are indexes of it, which have the results if it is attested.
    """
    written = read_checks(results, rendered.plan.cell.name) if results else None
    if written and written.id in {str(manifest.digest) for manifest in manifests}:
        return written.checks
    return next(filter(None, map(checks_of, manifests)), ())


def _fetch_inputs(
    repository: ImageRef, journal: Sequence[Promotion], registries: Registries
) -> Mapping[Digest, ImageInputs]:
    """The inputs of all images that the journal names, as far as they are still there."""
    digests = {digest for promotion in journal for move in promotion.moves for digest in (move.old, move.new) if digest}
    wanted = sorted(digests, key=str)

    def fetch(digest: Digest) -> ImageInputs | None:
        try:
            return _inputs_of(fetch_image_config(repository.with_digest(digest), registries))
        except RegistryError:
            return None

    found = zip(wanted, registries.map(fetch, wanted), strict=True)
    return {digest: inputs for digest, inputs in found if inputs}


def _inputs_of(config: ImageConfig) -> ImageInputs | None:
    return ImageInputs.from_label(config.labels.get(INPUTS_LABEL, ""))


def _rows(promotion: Promotion, inputs: Mapping[Digest, ImageInputs]) -> tuple[HistoryRow, ...]:
    rows = []
    for move in promotion.moves:
        old, new = (inputs.get(digest) if digest else None for digest in (move.old, move.new))
        changes = input_changes(old, new) if old and new else None
        rows.append(
            HistoryRow(
                at=promotion.at, by=promotion.by, tag=move.tag, is_complete=promotion.complete,
                old=str(move.old) if move.old else None, new=str(move.new) if move.new else None, changes=changes,
            )
        )  # fmt: skip
    return tuple(rows)
