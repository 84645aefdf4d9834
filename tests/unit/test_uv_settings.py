"""The uv settings with which an image is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builder.image.uv_settings import settings_of
from builder.lock.model import Selection
from builder.lock.select import select
from tests.cells import alpine
from tests.locks import INDEX, pure, read, sdist

BUILT: dict[str, Any] = {"name": "built", "version": "1.0", "index": INDEX, "sdist": sdist("built", "1.0")}


def selection(folder: Path, settings: str, *packages: dict[str, Any]) -> Selection:
    """What a cell selects for a project with these settings."""
    (folder / "uv.toml").write_text(settings, encoding="utf-8")
    return select(read(folder, *packages), alpine())


@pytest.mark.parametrize(
    ("settings", "indexes"),
    [
        ("", [INDEX]),
        ('index-url = "https://one.invalid/simple"', ["https://one.invalid/simple"]),
        (
            (
                'index-url = "https://one.invalid/simple"\nextra-index-url = ["https://two.invalid/simple"]\n'
                '[[index]]\nname = "three"\nurl = "https://three.invalid/simple"'
            ),
            ["https://three.invalid/simple", "https://two.invalid/simple", "https://one.invalid/simple"],
        ),
        (
            '[[index]]\nurl = "https://four.invalid/simple"\ndefault = true\ncache-control = { api = "max-age=1" }',
            ["https://four.invalid/simple"],
        ),
    ],
)
def test_answers_of_every_index_last(tmp_path: Path, settings: str, indexes: list[str]) -> None:
    """Broken: a job's build asks the index again once its answers are some minutes old; or asks another index."""
    found = settings_of(selection(tmp_path, settings, BUILT))
    assert [index["url"] for index in found["index"]] == indexes
    assert [index.get("default", False) for index in found["index"]] == [False] * (len(indexes) - 1) + [True]
    assert {index["cache-control"]["api"] for index in found["index"]} == {"max-age=365000000"}
    assert not found.keys() & {"index-url", "extra-index-url"}


def test_without_builds_the_settings_are_the_projects(tmp_path: Path) -> None:
    """Broken: images without anything to build are built again because of settings that nothing reads."""
    wheels = selection(tmp_path, 'index-url = "https://one.invalid/simple"', pure("one"))
    assert settings_of(wheels) == wheels.uv_settings == {"index-url": "https://one.invalid/simple"}
    assert settings_of(selection(tmp_path, "")) == {}


def test_default_index(tmp_path: Path) -> None:
    """Broken: the public index's answers do not last, or are where uv in a job does not look for them."""
    vcs = {"name": "forked", "vcs": {"type": "git", "url": "https://git.invalid/f.git", "commit-id": "ab" * 20}}
    (index,) = settings_of(selection(tmp_path, "", vcs))["index"]
    assert index["default"]
    assert index["url"].endswith("/simple")  # uv notes the public index by this form
