"""The documentation: its links lead somewhere, and what it says of commands and settings exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from builder.cli.main import COMMANDS
from builder.verify.checks import CHECKS

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "bench/*.md", "sandbox/*.md")
    for path in ROOT.glob(pattern)
    if ".venv" not in path.parts
)
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s#]*)(?:#(?P<anchor>[^)\s]*))?\)")


def prose(path: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^(```|~~~).*?^\1$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """The anchors that GitLab, GitHub and mkdocs make of a page's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} (.+)$", prose(path), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip()))
    return found


def links(path: Path) -> Iterator[tuple[Path, str]]:
    """The files that a page links to, each with an anchor or ''."""
    for match in LINK.finditer(re.sub(r"`[^`]*`", "", prose(path))):
        if not re.match(r"[a-z]+:", match["target"]):
            target = path.parent / unquote(match["target"]) if match["target"] else path
            yield target, match["anchor"] or ""


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    """Broken: a link of the documentation leads to a page or heading that does not exist."""
    missing = [str(target) for target, _ in links(path) if not target.exists()]
    assert missing == []
    wrong = [(target.name, anchor) for target, anchor in links(path) if anchor and anchor not in anchors(target)]
    assert wrong == []


def test_all_pages_are_in_the_site() -> None:
    """Broken: a page is written, and nobody finds it."""
    table = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    named = {page for section in table["nav"] for pages in section.values() for page in pages}
    made = {"index.md", "contributing.md", "changelog.md"}
    made |= {f"reference/{name}.md" for name in ("cli", "settings", "exit-codes", "labels")}
    assert named == made | {path.name for path in (ROOT / "docs").glob("*.md")}
    assert table["theme"]["font"] is False
    assert table["plugins"] == ["search"]


def test_commands_of_the_documentation_exist() -> None:
    """Broken: somebody copies a command that builder does not have, or looks for a check that is not explained."""
    shown = re.compile(r"(?:^\$ |`)(?:uvx prebuilt|builder) (?P<command>[a-z][a-z-]*)", re.MULTILINE)
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        assert {match["command"] for match in shown.finditer(text)} <= set(COMMANDS), path
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in CHECKS if f"`{name}`" not in readme] == []
    assert [name for name in COMMANDS if f"`builder {name}" not in readme] == []


def test_recording_is_up_to_date() -> None:
    """Broken: the recording shows commands that are no longer those of the first page."""
    text = (ROOT / "docs/pictures/recording.svg").read_text(encoding="utf-8")
    assert re.findall(r">\$ (uvx prebuilt \w+)", text) == [
        "uvx prebuilt init", "uvx prebuilt build", "uvx prebuilt run",
    ]  # fmt: skip
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
