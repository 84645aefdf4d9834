"""The end of a build for people: a row for each cell, where the logs are, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence

from builder.cli.output.columns import columns
from builder.cli.output.text import format_size
from builder.contract import LAYER_KEY
from builder.layer.assemble import AssembledImage
from builder.run import CellResult
from builder.verify.runner import Built

_HEAD = ("CELL", "OUTCOME", "PACKAGES", "SIZE", "NEW", "SECONDS", "CHECKS")


def summary(results: Sequence[CellResult], *, pushed: bool) -> str:
    """The cells that a run made, '' if it made none; then the folder of their logs, and the next command."""
    made = [result for result in results if result.built]
    if not made:
        return ""
    lines = [columns([_HEAD, *map(_row, made)], right={2, 3, 4, 5})]
    folders = sorted({str(result.log.parent) for result in made if result.log})
    lines += [f"logs: {', '.join(folders)}"] if folders else []
    if advice := _next(results, pushed=pushed):
        lines.append(f"next: {advice}")
    return "\n".join(lines)


def _row(result: CellResult) -> tuple[str, ...]:
    size, new = ("?", "?") if result.built is None else (format_size(result.built.size), _new_size(result.built))
    passed = sum(check.verdict == "passed" for check in result.checks)
    failed = [check.name for check in result.checks if check.verdict == "failed"]
    checks = f"{passed} passed" + (f", failed: {', '.join(failed)}" if failed else "") if result.checks else "none"
    return (
        result.rendered.plan.cell.name, result.outcome, str(len(result.rendered.plan.selection.packages)),
        size, new, f"{result.seconds:.1f}", checks,
    )  # fmt: skip


def _new_size(built: Built) -> str:
    """What of an image this run made: its new layers, compressed."""
    if not isinstance(built, AssembledImage):
        return "?"
    keys = {layer.key for layer in built.made}
    layers = built.manifest.body.layers
    return format_size(sum(layer.size for layer in layers if (layer.annotations or {}).get(LAYER_KEY) in keys))


def _next(results: Sequence[CellResult], *, pushed: bool) -> str:
    """What to do after the run."""
    if any(result.error for result in results):
        return ""
    first = results[0].rendered
    if pushed:
        return f"image: {first.moving_tags[0].familiar} in a job; `builder ls` lists what is published"
    return f"builder run --only {first.plan.cell.selector} -- COMMAND"
