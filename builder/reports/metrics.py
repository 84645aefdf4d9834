"""Bytes and seconds of each cell as OpenMetrics, which GitLab compares with those of the target branch.

See https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md, "Text format".
"""

from __future__ import annotations

from collections.abc import Sequence

from builder.reports.facts import CellFacts


def metrics_text(facts: Sequence[CellFacts]) -> str:
    """A gauge for each kind of number; cells for which it is not known are left out."""
    lines: list[str] = []
    for name, unit, text, values in (
        ("prebuilt_image_bytes", "bytes", "Size of all layers, compressed.", [each.size for each in facts]),
        ("prebuilt_image_new_bytes", "bytes", "Size of the layers that the image before this one lacks.",
         [each.new_size for each in facts]),
        ("prebuilt_image_packages", "", "Packages of the lock in the image.",
         [len(each.rendered.plan.selection.packages) for each in facts]),
        ("prebuilt_build_seconds", "seconds", "Time from the start of the build to the last tag.",
         [round(each.result.seconds, 3) if each.result.seconds else None for each in facts]),
    ):  # fmt: skip
        samples = [
            f'{name}{{cell="{each.name}"}} {value}'
            for each, value in zip(facts, values, strict=True)
            if value is not None
        ]
        if samples:
            units = [f"# UNIT {name} {unit}"] if unit else []
            lines += [f"# TYPE {name} gauge", *units, f"# HELP {name} {text}", *samples]
    return "\n".join([*lines, "# EOF"]) + "\n"
