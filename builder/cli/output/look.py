"""The images of a repository, the contents of one, and diagnoses, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from builder.cli.output.columns import columns
from builder.contract import KEY_LENGTH
from builder.doctor import Diagnosis
from builder.errors import counted
from builder.oci.reference import ImageRef
from builder.release.catalogue import ListedTag
from builder.release.contents import Contents
from builder.release.prune import IMMUTABLE

_SHOWN: Final = 30  # packages; the JSON has all
_STATUS: Final = {
    "promoted": "promoted", "foreign": "moved by another", "in-use": "in use", "previous": "for rollback",
    "unused": "unused", "unverified": "unverified",
}  # fmt: skip


def catalogue_table(listed: Sequence[ListedTag], now: datetime, *, everything: bool) -> str:
    """A row for each moving tag, and with `everything` for each immutable one."""
    rows = [
        (
            each.tag, _age(each.at, now), _size(each.size), str(each.digest)[7:19], each.key[:KEY_LENGTH],
            _STATUS[each.status], each.by,
        )
        for each in listed if everything or not IMMUTABLE.fullmatch(each.tag)
    ]  # fmt: skip
    return columns([("TAG", "AGE", "SIZE", "DIGEST", "KEY", "STATUS", "PROMOTED BY"), *rows]) if rows else ""


def catalogue_json(repository: ImageRef, listed: Sequence[ListedTag]) -> dict[str, Any]:
    """The output of `builder ls --json`."""
    return {
        "repository": repository.familiar,
        "tags": [
            {
                "tag": each.tag, "cell": each.cell, "key": each.key, "digest": str(each.digest), "size": each.size,
                "status": each.status, "at": each.at.isoformat() if each.at else None, "by": each.by,
            }
            for each in listed
        ],
    }  # fmt: skip


def contents_table(found: Contents) -> str:
    """The image in a few lines, its packages by size, and its layers."""
    size = f"{_size(found.size)}{' unpacked' if found.unpacked else ''}"
    parts = [size, counted(len(found.packages), "package"), counted(len(found.layers), "layer")]
    lines = [
        f"{found.ref.familiar}  {', '.join(parts)}",
        f"  cell    {found.cell}", f"  key     {found.key[:KEY_LENGTH]}", f"  digest  {found.digest}",
        f"  base    {found.inputs.base}", f"  uv      {found.inputs.uv}", "",
    ]  # fmt: skip
    packages = [
        (each.name, each.version, ("~" if each.is_shared else "") + _size(each.size), _share(each.size, found.size))
        for each in found.packages[:_SHOWN]
    ]
    lines.append(columns([("PACKAGE", "VERSION", "SIZE", "OF ALL"), *packages], right={2, 3}))
    if len(found.packages) > _SHOWN:
        lines.append(f"and {len(found.packages) - _SHOWN} more; --json lists them")
    layers = [
        (each.kind, _size(each.size), each.digest[7:19], _named(each.packages))
        for each in found.layers
    ]  # fmt: skip
    return "\n".join([*lines, "", columns([("LAYER", "SIZE", "DIGEST", "PACKAGES"), *layers], right={1})])


def contents_json(found: Contents) -> dict[str, Any]:
    """The output of `builder show --json`."""
    return {
        "image": found.ref.familiar, "digest": str(found.digest), "cell": found.cell, "key": found.key,
        "base": found.inputs.base, "uv": found.inputs.uv, "size": found.size,
        "unpacked": found.unpacked,
        "packages": [
            {"name": each.name, "version": each.version, "size": each.size, "shared": each.is_shared}
            for each in found.packages
        ],
        "layers": [
            {"kind": each.kind, "digest": each.digest or None, "size": each.size, "packages": list(each.packages)}
            for each in found.layers
        ],
    }  # fmt: skip


def diagnosis_line(found: Diagnosis) -> str:
    """A line with the verdict, and one with the remedy if there is one."""
    line = f"{found.verdict:<8}{found.subject:<22}{found.found}"
    return f"{line}\n{'':<30}→ {found.remedy}" if found.remedy else line


def diagnoses_json(found: Sequence[Diagnosis]) -> dict[str, Any]:
    """The output of `builder doctor --json`."""
    return {
        "checks": [
            {"subject": each.subject, "verdict": each.verdict, "found": each.found, "remedy": each.remedy}
            for each in found
        ]
    }


def _age(at: datetime | None, now: datetime) -> str:
    """How long ago, in the largest unit that fits; `?` if unknown."""
    if at is None:
        return "?"
    seconds = max(0, int((now - at).total_seconds()))
    units = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
    unit, length = next((each for each in units if seconds >= each[1]), units[-1])
    return f"{seconds // length} {unit}"


def _size(size: int | None) -> str:
    if size is None:
        return "?"
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


def _share(size: int | None, total: int) -> str:
    return "" if size is None or not total else f"{100 * size / total:.1f} %"


def _named(packages: Sequence[str]) -> str:
    text = ", ".join(packages[:4])
    return f"{text} and {len(packages) - 4} more" if len(packages) > 4 else text
