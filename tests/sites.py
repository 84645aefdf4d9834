"""A repository of 40 cells as `builder report` shows it, with hostile names where a registry could put them."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta, timezone
from typing import Final

from builder.image.inputs import ImageInputs
from builder.oci.reference import Digest, ImageRef
from builder.pages.model import CellPage, HistoryRow, PublishedPage, Site
from builder.release.contents import Contents, ShownLayer, packages_of
from builder.release.state import Status
from builder.verify.checks import CHECKS
from builder.verify.inside import Check

NOW: Final = datetime(2026, 11, 22, 9, 30, tzinfo=timezone.utc)
HOSTILE: Final = "</title></style><script>document.title='owned'</script><img src=x onerror=alert(1)>\"'&amp;{{ 7*7 }}"
PYTHONS: Final = tuple(f"3.{minor}" for minor in range(8, 16))
BASES: Final = ("bookworm-slim", "trixie-slim", "bookworm", "alpine", "ubi9")
SIZES: Final = {
    "pandas": 12_900_000, "numpy": 16_800_000, "botocore": 13_700_000, "mypy": 11_500_000, "sqlalchemy": 3_200_000,
    "ruff": 11_100_000, "pydantic-core": 2_100_000, "lxml": 5_200_000, "pillow": 6_900_000, "fastapi": 96_000,
}  # fmt: skip
SMALL: Final = tuple(f"small-{number}" for number in range(50))


def digest(text: str) -> str:
    """A digest that a text decides."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def site(*, hostile: str = "", count: int = 40) -> Site:
    """The repository; `hostile` is in every text that comes from a lock, a registry or an image."""
    cells = tuple(
        _cell(python, base, number * len(BASES) + other, hostile)
        for number, python in enumerate(PYTHONS)
        for other, base in enumerate(BASES)
    )
    rows = tuple(_promotion(days, hostile) for days in (0, 3, 9))
    return Site(repository="registry.example.com/acme/shop/ci", at=NOW, cells=cells[:count], promotions=rows)


def _cell(python: str, base: str, number: int, hostile: str) -> CellPage:
    name = f"{python}-{base}"
    statuses: dict[int, Status] = {7: "to-promote", 39: "new"}
    status = statuses.get(number, "moved" if number % 5 == 3 else "up-to-date")
    uv = "uv: ghcr.io/astral-sh/uv:0.13.8 → ghcr.io/astral-sh/uv:0.13.9"
    reasons: dict[Status, tuple[str, ...]] = {
        "moved": (f"package numpy: 2.3.4 → 2.3.5{hostile}", uv),
        "to-promote": (f"already built; {name} names sha256:77ab{hostile}",),
    }
    return CellPage(
        name=name, python=python, column=base, platform="linux/amd64",
        tags=(name, *(("latest",) if number == 0 else ())), status=status, reasons=reasons.get(status, ()),
        image=None if status == "new" else image(number, hostile), history=_history(name, hostile),
    )  # fmt: skip


def _layers(number: int, hostile: str) -> tuple[ShownLayer, ...]:
    foundation = {"system": 21_000_000, "uv": 19_800_000, "stdlib": 5_100_000, "environment": 2_300_000}
    rows: list[tuple[str, int, tuple[str, ...]]] = [
        *(("base", size, ()) for size in (28_000_000, 19_400_000)),
        *((kind, size, ()) for kind, size in foundation.items()),
        *(
            ("source" if name == "lxml" else "wheels", size + number * 1000, (f"{name}{hostile}",))
            for name, size in SIZES.items()
        ),
        ("wheels", 4_000_000, tuple(f"{name}{hostile}" for name in SMALL)),
    ]
    return tuple(
        ShownLayer(kind=kind, size=size, digest=digest(f"{kind}{size}"), packages=packages)
        for kind, size, packages in rows
    )


def image(number: int = 0, hostile: str = "") -> PublishedPage:
    """An image of 60 packages."""
    layers = _layers(number, hostile)
    versions = {f"{name}{hostile}": f"1.{place}{hostile}" for place, name in enumerate([*SIZES, *SMALL])}
    settings = {
        "python": "3.13", "base": f"docker.io/library/python:3.13-slim-bookworm@{digest('base')}",
        "uv": "ghcr.io/astral-sh/uv:0.13.8", "system packages": f"git curl{hostile}",
    }  # fmt: skip
    inputs = ImageInputs(
        cell="3.13",
        python="3.13",
        base=settings["base"],
        uv=settings["uv"],
        packages=versions,
        settings={},
        template="",
    )
    contents = Contents(
        ref=ImageRef.from_str("registry.example.com/acme/shop/ci"), digest=Digest.from_str(digest(f"image{number}")),
        inputs=inputs, cell="3.13", key="0" * 64, layers=layers,
        packages=packages_of(layers, versions, dict.fromkeys(versions, 80_000)),
    )  # fmt: skip
    said = f"61 packages, all of them as locked{hostile}"
    return PublishedPage(
        contents=contents, digest=digest(f"image{number}"), made=NOW - timedelta(hours=7 + 20 * number),
        settings=settings,
        checks=tuple(Check(name=name, verdict="passed", evidence=said, seconds=1.25) for name in CHECKS),
    )  # fmt: skip


def _history(name: str, hostile: str) -> tuple[HistoryRow, ...]:
    changes = (f"package pandas: 2.3.2 → 2.3.3{hostile}", "package numpy: 2.3.3 → 2.3.4", "package six: added 1.17.0")
    return (
        _row(name, 0, changes, hostile),
        _row(name, 3, None, hostile),
        _row(name, 9, (), hostile),
    )


def _row(tag: str, days: int, changes: tuple[str, ...] | None, hostile: str) -> HistoryRow:
    return HistoryRow(
        at=NOW - timedelta(days=days, hours=7), by=f"pipeline 1{days}7 of acme/shop{hostile}", tag=tag,
        old=digest(f"{tag}{days + 1}"), new=digest(f"{tag}{days}"), is_complete=days != 9, changes=changes,
    )  # fmt: skip


def _promotion(days: int, hostile: str) -> tuple[HistoryRow, ...]:
    changes = (f"package pandas: 2.3.2 → 2.3.3{hostile}", "package numpy: 2.3.3 → 2.3.4") if days == 0 else None
    return tuple(_row(f"{python}-bookworm-slim", days, changes, hostile) for python in PYTHONS)
