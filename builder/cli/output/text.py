"""Plans, differences and outcomes as text."""

from __future__ import annotations

from collections.abc import Sequence

from builder.errors import counted
from builder.oci.reference import ImageRef
from builder.publication import Publication
from builder.release.diff import Difference
from builder.run import CellResult
from builder.verify.inside import Check


def dry_run_table(done: Publication, repository: ImageRef, *, pushed: bool) -> str:
    """What a run would do, one line each: build, push, move a tag."""
    verb = "build and push  " if pushed else "build  "
    lines = []
    for result in done.results:
        tag = result.rendered.immutable_tag if pushed else result.rendered.moving_tags[0]
        if result.outcome == "planned":
            lines.append(f"{verb}{tag.familiar}")
        elif result.outcome == "pushed":
            lines.append(f"push            {tag.familiar}")
    for move in done.promotion.moves if done.promotion else ():
        tag = repository.with_tag(move.tag)
        lines.append(f"move            {tag.familiar}: {move.old or 'nothing'} → {move.new or 'the new image'}")
    return "\n".join(lines) or "nothing to do: every cell is up to date"


def promotion_lines(done: Publication) -> list[str]:
    """The notes at the end of a run that pushes: which tags moved."""
    if done.promotion is None:
        if any(result.error for result in done.results):
            return ["builder: no moving tag was moved"]
        if all(result.outcome == "up-to-date" for result in done.results):
            return [f"builder: nothing to do: {are_up_to_date(len(done.results))}"]
        return ["builder: no moving tag was moved"]
    return [f"moved  {move.tag}: {move.old or 'nothing'} → {move.new}" for move in done.promotion.moves]


def are_up_to_date(cells: int) -> str:
    """`1 cell is up to date`, `3 cells are up to date`."""
    return f"{counted(cells, 'cell')} {'is' if cells == 1 else 'are'} up to date"


def diff_table(found: Difference) -> str:
    """A difference as text: what differs, and the size of the layers that a machine with the old image would pull."""
    lines = [f"{found.old.name}", f"→ {found.new.name}"]
    for title, moves in found.parts.items():
        lines += [f"  {title}", *(f"    {move}" for move in moves)] if moves else []
    if found.new_bytes is not None and found.shared_bytes is not None:
        lines.append(f"  layers     {format_size(found.shared_bytes)} shared, {format_size(found.new_bytes)} new")
    return "\n".join(lines) if len(lines) > 2 else "\n".join([*lines, "  no difference"])


def checks_table(checks: Sequence[Check]) -> str:
    """Checks as text, one line each."""
    return "\n".join(f"{check.verdict:<8}{check.name:<22}{check.seconds:6.2f} s  {check.evidence}" for check in checks)


def timings_table(results: Sequence[CellResult]) -> str:
    """Where the time of each cell went: its steps in seconds, and the checks, which ran side by side."""
    lines = []
    for result in results:
        lines.append(f"{result.rendered.plan.cell.name}  {result.seconds:.2f} s")
        for step, seconds in result.watch.seconds.items():
            lines.append(f"  {step:<22}{seconds:6.2f} s")
            checks = result.checks if step == "verify" else ()
            lines += [f"    {check.name:<20}{check.seconds:6.2f} s" for check in checks]
    return "\n".join(lines)


def format_size(size: int) -> str:
    """Format a size in bytes as megabytes."""
    return f"{size / 1e6:.1f} MB"
