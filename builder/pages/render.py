"""Renders the pages, and writes them: HTML without scripts and without other files, in which all text is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from builder import __version__
from builder.errors import UsageError
from builder.pages.model import Site
from builder.pages.treemap import HEIGHT, WIDTH, tiles
from builder.redaction import redact
from builder.release.state import Status
from builder.whole_file import write_whole

_MARK: Final = '<meta name="generator" content="prebuilt'  # by which a page of an earlier run is known
_STATUSES: Final[Mapping[Status, tuple[str, str, str]]] = {  # class, sign and words
    "up-to-date": ("good", "✓", "up to date"),
    "to-promote": ("warn", "↑", "needs promotion"),
    "moved": ("warn", "↻", "needs rebuild"),
    "new": ("bad", "+", "needs build"),
}


def render_pages(site: Site) -> dict[str, str]:
    """The text of each page by its file name."""
    environment = _environment()
    now = {"site": site, "age": lambda time: age(site.at, time), "statuses": _STATUSES, "version": __version__}
    pages = {name: environment.get_template(name).render(page=name, **now) for name in ("index.html", "history.html")}
    cell_page = environment.get_template("cell.html")
    for cell in site.cells:
        laid_out = tiles(cell.image.parts) if cell.image else ()
        pages[cell.file] = cell_page.render(
            page=cell.file, cell=cell, tiles=laid_out, width=WIDTH, height=HEIGHT, **now
        )
    return pages


def write_pages(pages: Mapping[str, str], folder: Path) -> None:
    """Write the pages, and remove those of an earlier run whose cells are gone.

    Raises UsageError if the folder cannot be written to, or has an index.html that builder did not write.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        old = [path for path in (folder / "index.html", *folder.glob("cell-*.html")) if path.exists()]
        if foreign := [path for path in old if _MARK not in path.read_text(encoding="utf-8", errors="replace")]:
            raise UsageError(f"{foreign[0]} was not written by `builder report`", hint="name another folder with -o")
        for name, text in pages.items():
            write_whole(folder / name, text)
        for path in old:
            if path.name not in pages:
                path.unlink()
    except OSError as error:
        raise UsageError(
            f"cannot write {error.filename or folder}: {error.strerror}", hint="name another folder"
        ) from error


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("builder.pages"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=lambda value: redact(value) if type(value) is str else value,
    )  # fmt: skip
    environment.filters["megabytes"] = megabytes
    environment.filters["clock"] = lambda time: f"{time:%Y-%m-%d %H:%M} UTC"
    environment.filters["short"] = lambda digest: digest.partition(":")[2][:12] if digest else "nothing"
    return environment


def megabytes(size: int) -> str:
    """A size for people: `3.1 MB`, `420 kB`."""
    return f"{size / 1e6:,.1f} MB" if size >= 1_000_000 else f"{size / 1e3:,.0f} kB"


def age(now: datetime, time: datetime) -> str:
    """How long ago a time was, in its largest unit: `3 days`."""
    passed = now - time
    for unit, length in (("day", timedelta(days=1)), ("hour", timedelta(hours=1)), ("minute", timedelta(minutes=1))):
        if count := passed // length:
            if count > 0:
                return f"{count} {unit}{'s' if count > 1 else ''}"
            break
    return "less than a minute"
