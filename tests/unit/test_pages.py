"""The pages of `builder report`: only their own markup is markup, and all links lead somewhere."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import timedelta
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from builder.contract import MANIFEST_TYPE
from builder.errors import UsageError
from builder.oci.manifest import Manifest
from builder.pages.render import age, megabytes, render_pages, write_pages
from builder.pages.treemap import HEIGHT, WIDTH, Part, tiles
from builder.redaction import keep_secret
from builder.release.immutable import checks_of, with_checks
from builder.verify.inside import Check
from tests.sites import HOSTILE, NOW, image, site

VOID = {"meta", "link", "br", "img", "input", "hr"}


@dataclass
class Page(HTMLParser):
    """What a page consists of, parsed as a browser would."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See HTMLParser."""
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See HTMLParser."""
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """See HTMLParser."""
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes another element at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        """See HTMLParser."""
        self.texts.append(data)


def read(text: str) -> Page:
    """Parse a page; fail if its elements are not nested."""
    page = Page()
    page.feed(text)
    page.close()
    assert (page.faults, page.open) == ([], [])
    return page


@pytest.fixture(scope="module")
def pages() -> dict[str, Page]:
    """The pages of 40 cells, in all of whose texts is markup."""
    return {name: read(text) for name, text in render_pages(site(hostile=HOSTILE)).items()}


def test_texts_stay_texts(pages: dict[str, Page]) -> None:
    """Broken: the name of a package, a check's evidence or a journal's entry becomes markup in the report."""
    own = {"a", "svg", "g", "rect", "text", "title", "details", "summary", "time", "style", "meta"}
    for name, page in pages.items():
        kinds = {kind for kind, _ in page.elements}
        assert not kinds & {"script", "img", "iframe", "object", "link", "form"}, name
        assert own & kinds
        assert not [each for _, attrs in page.elements for each in attrs if each.startswith("on")]
        assert len([kind for kind, _ in page.elements if kind == "style"]) == 1
    assert HOSTILE in "".join(pages["cell-3.9-bookworm-slim.html"].texts)


def test_links_lead_to_pages(pages: dict[str, Page]) -> None:
    """Broken: a page asks another server for something, or links to a page that is not there."""
    links = {(name, attrs["href"]) for name, page in pages.items() for kind, attrs in page.elements if kind == "a"}
    assert len(links) > 80
    for name, link in links:
        target, _, anchor = str(link).partition("#")
        found = pages[target or name]
        assert not anchor or anchor in {attrs.get("id") for _, attrs in found.elements}
    assert not [attrs for page in pages.values() for _, attrs in page.elements if "src" in attrs]
    policies = [attrs for page in pages.values() for _, attrs in page.elements if "http-equiv" in attrs]
    assert len(policies) == len(pages)
    assert all(str(policy["content"]).startswith("default-src 'none'") for policy in policies)


def test_pages_can_be_read_aloud(pages: dict[str, Page]) -> None:
    """Broken: a screen reader finds no landmarks, no order of headings, or cells of a table without a header."""
    for name, page in pages.items():
        kinds = [kind for kind, _ in page.elements]
        assert {"header", "nav", "main", "footer"} <= set(kinds), name
        levels = [int(kind[1]) for kind in kinds if kind in {"h1", "h2", "h3"}]
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels)), name
        assert all(attrs.get("scope") in {"row", "col"} for kind, attrs in page.elements if kind == "th")
        ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
        assert len(ids) == len(set(ids))
        labels = [attrs for _, attrs in page.elements if attrs.get("role") == "region"]
        assert all(attrs.get("aria-labelledby") in ids or attrs.get("aria-label") for attrs in labels)


def test_all_cells_are_in_the_grid(pages: dict[str, Page]) -> None:
    """Broken: the report leaves a cell out, or does not say what the next run changes."""
    text = "".join(pages["index.html"].texts)
    assert len([name for name in pages if name.startswith("cell-")]) == 40
    assert all(cell.name in text for cell in site().cells)
    assert "package numpy: 2.3.4 → 2.3.5" in text
    assert "8 cells" in text


@pytest.mark.parametrize("sizes", [[1], [5, 3, 2], list(range(1, 200)), [10**9, 1, 1], [7] * 60])
def test_treemap_is_in_proportion(sizes: list[int]) -> None:
    """Broken: the picture shows a package larger or smaller than it is, or two on top of each other."""
    parts = [Part(name=f"p{number}", kind="wheels", size=size) for number, size in enumerate(sizes)]
    found = tiles([*parts, Part(name="empty", kind="wheels", size=0)])
    assert len(found) == len(sizes)
    scale = WIDTH * HEIGHT / sum(sizes)
    assert all(tile.width * tile.height == pytest.approx(tile.part.size * scale, rel=1e-6) for tile in found)
    assert all(tile.x >= 0 and tile.y >= 0 for tile in found)
    assert all(tile.x + tile.width <= WIDTH + 1e-3 and tile.y + tile.height <= HEIGHT + 1e-3 for tile in found)
    if len(found) <= 60:
        assert not [
            (a, b)
            for number, a in enumerate(found) for b in found[number + 1 :]
            if min(a.x + a.width, b.x + b.width) - max(a.x, b.x) > 1e-6
            and min(a.y + a.height, b.y + b.height) - max(a.y, b.y) > 1e-6
        ]  # fmt: skip
    assert tiles([]) == ()


def test_parts_are_all_of_the_image() -> None:
    """Broken: the picture leaves out what takes space, or counts it twice."""
    found = image()
    assert sum(part.size for part in found.parts) == pytest.approx(found.contents.size, abs=len(found.parts))
    kinds = {part.name: part.kind for part in found.parts}
    assert (kinds["base image"], kinds["uv"], kinds["lxml"], kinds["small-7"]) == (
        "base", "foundation", "source", "wheels",
    )  # fmt: skip
    unknown = replace(found, contents=replace(found.contents, packages=()))
    assert sum(part.size for part in unknown.parts) == found.contents.size


def test_checks_travel_with_the_image() -> None:
    """Broken: the report has no evidence of an image's checks, or a secret in it goes to the registry."""
    keep_secret("hunter2-hunter2")
    manifest = Manifest.of({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "annotations": {"a": "b"}, "layers": []})
    check = Check(name="files", verdict="passed", evidence="hunter2-hunter2 " + "x" * 900, seconds=0.5)
    written = with_checks(manifest, [check])
    (found,) = checks_of(written)
    assert (found.name, found.verdict, found.seconds) == ("files", "passed", 0.5)
    assert "hunter2" not in written.content.decode()
    assert len(found.evidence) == 500
    assert written.body.annotations is not None
    assert written.body.annotations["a"] == "b"
    for damaged in ("", "[", "{}", '[{"name": 1}]', "[" * 10_000):
        annotated = {**written.table, "annotations": {"io.gitlab.prebuilt.checks": damaged}}
        assert checks_of(Manifest.of(annotated)) == ()
    assert json.loads(written.content)["schemaVersion"] == 2


def test_only_own_pages_are_replaced(tmp_path: Path) -> None:
    """Broken: `-o` overwrites somebody's site, or keeps pages of cells that are gone."""
    folder = tmp_path / "public"
    write_pages(render_pages(site()), folder)
    assert len(list(folder.iterdir())) == 42
    few = render_pages(site(count=3))
    write_pages(few, folder)
    assert {path.name for path in folder.iterdir()} == set(few)
    (folder / "index.html").write_text("<h1>mine</h1>")
    with pytest.raises(UsageError, match=r"index\.html was not written by"):
        write_pages(few, folder)
    assert (folder / "index.html").read_text() == "<h1>mine</h1>"


def test_words_for_sizes_and_ages() -> None:
    """Broken: an image of a week ago is shown as new, or one of megabytes in kilobytes."""
    assert [megabytes(size) for size in (0, 420_300, 999_999, 3_140_000)] == ["0 kB", "420 kB", "1,000 kB", "3.1 MB"]
    ages = [timedelta(days=7, hours=23), timedelta(days=1), timedelta(minutes=90), timedelta(seconds=20), -timedelta(1)]
    assert [age(NOW, NOW - passed) for passed in ages] == [
        "7 days", "1 day", "1 hour", "less than a minute", "less than a minute",
    ]  # fmt: skip
