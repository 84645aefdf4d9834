"""Fetches what the pages show: images and journal from the registry, and what the next run would change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from builder.contract import INPUTS_LABEL
from builder.errors import RegistryError
from builder.image.inputs import ImageInputs, input_changes
from builder.image.render import RenderedImage
from builder.oci.manifest import Descriptor, ImageConfig, Manifest
from builder.oci.reference import Digest, ImageRef
from builder.oci.registry import Registries
from builder.pages.model import CellPage, HistoryRow, LayerRow, PackageRow, PublishedPage, Site
from builder.pages.treemap import Part
from builder.redaction import redact
from builder.release.immutable import checks_of, pushed_at
from builder.release.journal import Promotion, fetch_settled_journal, journal_of
from builder.release.state import Explanation, fetch_explanations, fetch_image_config, fetch_image_manifest
from builder.verify.handover import read_checks
from builder.verify.inside import Check

_PREFIX: Final = "builder: "  # of the history entries of builder's own layers
_KINDS: Final = ("system", "uv", "stdlib", "environment", "build-systems", "source", "wheels", "notes")


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
        reasons=tuple(redact(reason) for reason in explanation.reasons),
        image=_fetch_image(image, results, registries),
        history=tuple(row for rows in history for row in rows if row.tag in tags),
    )


def _fetch_image(rendered: RenderedImage, results: Path | None, registries: Registries) -> PublishedPage | None:
    """The image that the cell's tag names; None if there is none, or builder did not make it."""
    tag = rendered.moving_tags[0]
    named = registries.fetch_manifest(tag)
    manifest = fetch_image_manifest(tag, registries) if named else None
    if named is None or manifest is None:
        return None
    config = fetch_image_config(tag, registries)
    inputs = _inputs_of(config)
    if inputs is None:
        return None
    layers = _layers(manifest, config)
    packages = _packages(inputs, layers, rendered)
    settings = {"python": inputs.python, "base": inputs.base, "uv": inputs.uv, **inputs.settings}
    return PublishedPage(
        digest=str(named.digest),
        platform=inputs.settings.get("platform", ""),
        made=pushed_at(named) or _time(config.created),
        size=sum(layer.size for layer in layers),
        settings={name: redact(value) for name, value in settings.items() if value not in {"", "{}"}},
        layers=layers,
        packages=packages,
        parts=space_parts(layers, packages),
        checks=_checks(named, rendered, results),
    )


def _checks(named: Manifest, rendered: RenderedImage, results: Path | None) -> tuple[Check, ...]:
    """The results of an image's checks: those that a job wrote about this very image, else those pushed with it."""
    written = read_checks(results, rendered.plan.cell.name) if results else None
    if written and written.id == str(named.digest):
        return written.checks
    return checks_of(named)


def _layers(manifest: Manifest, config: ImageConfig) -> tuple[LayerRow, ...]:
    titles = [entry.created_by for entry in config.history or () if not entry.empty_layer]
    layers = manifest.body.layers
    if len(titles) != len(layers):
        titles = [""] * len(layers)
    return tuple(_layer(layer, title) for layer, title in zip(layers, titles, strict=True))


def _layer(layer: Descriptor, created_by: str) -> LayerRow:
    title = created_by.removeprefix(_PREFIX)
    kind, _, names = title.partition(": ")
    is_ours = created_by.startswith(_PREFIX) and kind in _KINDS
    return LayerRow(
        title=redact(title) if is_ours else "base",
        kind=kind if is_ours else "base",
        size=layer.size,
        digest=layer.digest,
        packages=tuple(names.split(", ")) if is_ours and names else (),
    )


def _packages(inputs: ImageInputs, layers: Sequence[LayerRow], rendered: RenderedImage) -> tuple[PackageRow, ...]:
    """The image's packages; those that share a layer share its size in proportion to their wheels."""
    weights = {
        package.name: package.size or 0
        for package in rendered.plan.selection.packages
        if inputs.packages.get(package.name) == package.version
    }
    shares: dict[str, tuple[int, bool]] = {}
    for layer in layers:
        known = [weights.get(name, 0) for name in layer.packages]
        usual = sum(known) // max(1, sum(1 for each in known if each)) or 1
        parts = {name: weights.get(name, 0) or usual for name in layer.packages}
        for name, part in parts.items():
            shares[name] = (layer.size * part // sum(parts.values()), len(parts) == 1)
    return tuple(
        PackageRow(
            name=redact(name), version=redact(version), share=shares.get(name, (None, False))[0],
            is_alone=shares.get(name, (None, False))[1],
        )
        for name, version in sorted(inputs.packages.items())
    )  # fmt: skip


def space_parts(layers: Sequence[LayerRow], packages: Sequence[PackageRow]) -> tuple[Part, ...]:
    """What takes the space: the base, each foundation layer, each package."""
    kinds = {name: layer.kind for layer in layers for name in layer.packages}
    base = sum(layer.size for layer in layers if layer.kind == "base")
    own = [Part(name=layer.kind, kind="foundation", size=layer.size)
           for layer in layers if layer.kind != "base" and not layer.packages]  # fmt: skip
    return (
        Part(name="base image", kind="base", size=base),
        *own,
        *(Part(name=each.name, kind=kinds.get(each.name, "wheels"), size=each.share or 0) for each in packages),
    )


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
        changes = tuple(redact(line) for line in input_changes(old, new)) if old and new else None
        rows.append(
            HistoryRow(
                at=promotion.at, by=redact(promotion.by), tag=move.tag, is_complete=promotion.complete,
                old=str(move.old) if move.old else None, new=str(move.new) if move.new else None, changes=changes,
            )
        )  # fmt: skip
    return tuple(rows)


def _time(text: str | None) -> datetime | None:
    try:
        time = datetime.fromisoformat((text or "")[:19] + "+00:00")
    except ValueError:
        return None
    return time
