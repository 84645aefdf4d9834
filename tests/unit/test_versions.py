"""The versions that the documentation names."""

from __future__ import annotations

import re
from pathlib import Path

from packaging.version import Version

import builder

_NAMED = re.compile(r"(?:prebuilt@|prebuilt==|/cli:)(\d+\.\d+\.\d+)")
_RELEASED = re.compile(r"^## (\d+\.\d+\.\d+)$", re.MULTILINE)


def test_documentation_names_one_version(repository_root: Path) -> None:
    """Broken: what somebody copies from one page does not fit what another page says, or is older than the release."""
    pages = [
        *repository_root.glob("*.md"),
        *repository_root.glob("docs/*.md"),
        *repository_root.glob("templates/*.yml"),
    ]
    pages += [*repository_root.glob("builder/cli/*.py")]
    named = {text for page in pages for text in _NAMED.findall(page.read_text(encoding="utf-8"))}
    (only,) = named
    released = _RELEASED.findall((repository_root / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert Version(only) >= Version((released or ["0"])[0])
    assert Version(only) >= Version(Version(builder.__version__).base_version) or only in released
