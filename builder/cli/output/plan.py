"""A plan as text: a row for each cell, or all that is known of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from builder.cli.output.columns import columns
from builder.cli.output.text import format_size
from builder.errors import counted
from builder.image.index import indexes_of
from builder.image.render import RenderedImage
from builder.layer.build import LayerStatus
from builder.release.state import Explanation, Status

_HEAD: Final = ("CELL", "PACKAGES", "FROM SOURCE", "DOWNLOAD", "TO MAKE", "STATUS")
_SHORT: Final[Mapping[Status, str]] = {
    "up-to-date": "up to date", "to-promote": "needs promotion", "moved": "needs rebuild", "new": "needs build",
}  # fmt: skip


def plan_table(
    rendered: Sequence[RenderedImage],
    explanations: Mapping[str, Explanation] | None = None,
    layers: Mapping[str, LayerStatus] | None = None,
) -> str:
    """A row for each cell: packages, those from source, download, what is to be made, status; then the reasons."""
    if not rendered:
        return ""
    known, found = explanations or {}, layers or {}
    rows = [_row(image, known.get(image.plan.cell.name), found.get(image.plan.cell.name)) for image in rendered]
    return "\n".join([columns([_HEAD, *rows], right={1, 2, 3}), *_reason_lines(known)])


def _row(image: RenderedImage, explanation: Explanation | None, layers: LayerStatus | None) -> tuple[str, ...]:
    selection = image.plan.selection
    sources = sum(not package.is_wheel for package in selection.packages)
    download = "?" if selection.download_size is None else format_size(selection.download_size)
    return (
        image.plan.cell.name, str(len(selection.packages)), str(sources), download,
        _to_make(layers), _SHORT[explanation.status] if explanation else "no repository",
    )  # fmt: skip


def _to_make(layers: LayerStatus | None) -> str:
    """The layers that are to be made, and what is downloaded for them."""
    if layers is None or not layers.missing:
        return "nothing"
    return f"{len(layers.missing)} of {counted(len(layers.plan.layers), 'layer')}, {format_size(layers.download)}"


def _reason_lines(explanations: Mapping[str, Explanation]) -> list[str]:
    """Each reason once, with its cells."""
    cells: defaultdict[str, list[str]] = defaultdict(list)
    for name, explanation in explanations.items():
        for reason in explanation.reasons:
            cells[reason].append(name)
    return [
        f"{'all cells' if len(names) > 1 and len(names) == len(explanations) else ', '.join(names)}: {reason}"
        for reason, names in cells.items()
    ]


def plan_details(
    rendered: Sequence[RenderedImage],
    explanations: Mapping[str, Explanation] | None = None,
    layers: Mapping[str, LayerStatus] | None = None,
) -> str:
    """A plan as text, with all of each cell: packages, download, images, key, tags, layers and status."""
    lines = []
    indexes = {image.key: index for index in indexes_of(rendered) for image in index.images}
    for image in rendered:
        selection = image.plan.selection
        sources = [package.name for package in selection.packages if not package.is_wheel]
        download = "unknown size" if selection.download_size is None else format_size(selection.download_size)
        kinds = counted(len(selection.packages) - len(sources), "wheel")
        kinds += f", {len(sources)} built from source ({', '.join(sources)})" if sources else ""
        cached = [package.name for group in selection.cached for package in group]
        kinds += f"; {len(cached)} more in the cache only" if cached else ""
        lines += [
            image.plan.cell.name,
            f"  packages   {len(selection.packages)}: {kinds}",
            *([f"  tools      {' '.join(tool.pin for tool in selection.tools)}"] if selection.tools else []),
            f"  download   {download}",
            f"  base       {image.plan.base.familiar}",
            *([f"  python     {found.name}, from uv"] if (found := image.plan.cell.uv_python) else []),
            f"  uv         {image.plan.uv.familiar}",
            f"  key        {image.key}",
            *(f"  {'tags' if number == 0 else '':<10} {tag.familiar}" for number, tag in enumerate(image.tags)),
            *([f"  index      {indexes[image.key].immutable_tag.familiar}"] if image.key in indexes else []),
            *_layer_lines((layers or {}).get(image.plan.cell.name)),
            *_status_lines((explanations or {}).get(image.plan.cell.name)),
        ]
    return "\n".join(lines)


def _layer_lines(status: LayerStatus | None) -> list[str]:
    if status is None:
        return []
    total, missing = len(status.plan.layers), status.missing
    if not missing:
        return [f"  layers     {total}, all of them exist"]
    packages = [package.name for layer in missing for package in layer.packages]
    kinds = [layer.kind for layer in missing if not layer.packages]
    parts = [*kinds, *([f"{counted(len(packages), 'package')}, {format_size(status.download)}"] if packages else [])]
    return [f"  layers     {total}, of which {len(missing)} are to be made: {', '.join(parts)}"]


_STATES: Final[Mapping[Status, str]] = {
    "up-to-date": "up to date",
    "to-promote": "needs promotion: the image is built, but a tag does not name it",
    "moved": "needs rebuild: an input changed",
    "new": "needs build: there is no image yet",
}


def _status_lines(explanation: Explanation | None) -> list[str]:
    if explanation is None:
        return []
    return [f"  status     {_STATES[explanation.status]}", *(f"             {line}" for line in explanation.reasons)]
