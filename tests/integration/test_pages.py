"""`builder report` of real images, and its pages in a real Chromium: on a desk, on a phone, in the dark, on paper."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.pages.render import render_pages, write_pages
from builder.verify.checks import CHECKS
from tests.chromium import Browser, browsing, find_chromium
from tests.integration.conftest import own_name
from tests.integration.nightly import Nightly
from tests.integration.registries import Registry, an_open_registry
from tests.integration.seeds import Seeds, published_once
from tests.sites import HOSTILE, site

__all__ = ["an_open_registry", "published_once"]

CELL = "cell-3.9-bookworm-slim.html"
# The lowest contrast of texts with what is behind them (WCAG 2.2, 1.4.3), and the text that has it.
CONTRAST = """(() => {
    const parts = color => (color.match(/[0-9.]+/g) || []).map(Number);
    const light = color => {
        const linear = c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        const [r, g, b] = parts(color).map(c => linear(c / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = element => {
        for (let each = element; each; each = each.parentElement) {
            if (each.tagName === "text") continue;
            const rect = each.tagName === "g" && each.querySelector("rect");
            const color = rect ? getComputedStyle(rect).fill : getComputedStyle(each).backgroundColor;
            if (parts(color)[3] !== 0) return color;
        }
        return "rgb(255, 255, 255)";
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    let worst = [99, ""];
    for (let node; node = walker.nextNode();) {
        const element = node.parentElement;
        if (!node.data.trim() || element.tagName === "title") continue;
        const style = getComputedStyle(element);
        const [a, b] = [element.tagName === "text" ? style.fill : style.color, behind(element)].map(light);
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < worst[0]) worst = [ratio, node.data];
    }
    return worst;
})()"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real browser."""
    program = find_chromium()
    if program is None:
        pytest.skip("Chromium is not here, and cannot be installed: that takes root and a Debian machine")
    with browsing(program) as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of 40 cells, in all of whose texts is markup."""
    folder = tmp_path_factory.mktemp("pages")
    write_pages(render_pages(site(hostile=HOSTILE)), folder)
    return folder


def test_pages_on_screens(browser: Browser, pages: Path) -> None:
    """Broken: a page is wider than a phone, cannot be read in the dark, runs something or asks for another file."""
    for name in ("index.html", CELL, "history.html"):
        for width, dark in ((1280, False), (360, True)):
            browser.requests.clear()
            browser.open(pages / name, width=width, dark=dark)
            assert browser.evaluate("document.documentElement.scrollWidth") <= width, (name, width)
            assert browser.requests == [(pages / name).as_uri()]
            ratio, text = browser.evaluate(CONTRAST)
            assert ratio >= 4.5, (name, dark, ratio, text)
            assert "owned" not in browser.evaluate("document.title").split(" · ")
    assert browser.faults == []
    assert len(browser.screenshot()) > 10_000


def test_keyboard_and_paper(browser: Browser, pages: Path) -> None:
    """Broken: without a mouse one does not see where one is, or a printed page lacks what is folded on screen."""
    browser.open(pages / CELL)
    browser.press("Tab")
    assert browser.evaluate("document.activeElement.className") == "skip"
    assert browser.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
    browser.press("Enter")
    assert browser.evaluate("document.activeElement.id") == "main"
    for _ in range(3):
        browser.press("Tab")
    assert browser.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.open(pages / CELL, media="print")
    assert browser.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    hidden = "[...document.querySelectorAll('details > ul')].filter(each => !each.getClientRects().length).length"
    assert browser.evaluate(hidden) == 0
    assert browser.pdf().startswith(b"%PDF")


@pytest.mark.integration
def test_report_of_real_images(
    open_registry: Registry, tmp_path: Path, request: pytest.FixtureRequest, seeds: Seeds
) -> None:
    """Broken: the report lacks what is in the registry: layers, packages, checks, promotions."""
    nightly = Nightly(folder=tmp_path, repository=f"{open_registry.host}/{own_name(request)}", env={})
    nightly.lock()
    nightly.matrix()
    before = nightly.builder("report", "-o", "public")
    assert (before.returncode, before.stdout) == (0, "public/index.html\n"), before.stderr
    assert "needs build" in (tmp_path / "public" / "index.html").read_text()
    seeds.publish(nightly)
    done = nightly.builder("report", "-o", "public")
    assert done.returncode == 0, done.stderr
    index, cell = ((tmp_path / "public" / name).read_text() for name in ("index.html", "cell-3.13-slim.html"))
    assert index.count("up to date</span>") == 2
    assert all(f'<th scope="row">{name}</th>' in cell for name in CHECKS)
    (package,) = [
        each for each in json.loads(nightly.builder("plan", "--json").stdout)["cells"][1]["packages"]
        if each["name"] == "idna"
    ]  # fmt: skip
    assert f'<th scope="row">idna</th><td><code>{package["version"]}</code></td>' in cell
    assert "wheels: " in cell
    assert "The first image of this tag." in cell
