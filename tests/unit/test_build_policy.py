"""The settings of uv that forbid builds or wheels, and those for single builds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.errors import LockError
from builder.lock.model import Selection
from builder.lock.select import select
from tests import locks
from tests.cells import debian
from tests.locks import package, pure, sdist

BOTH = pure("both", with_sdist=True)
SOURCE = {"name": "src", "version": "1.0", "index": locks.INDEX, "sdist": sdist("src", "1.0")}
GIT = {"name": "lib", "vcs": {"type": "git", "url": "https://git.invalid/lib.git", "commit-id": "c0ffee" * 6 + "c0ff"}}
ARCHIVE = {"name": "zip", "archive": {"url": f"{locks.FILES}/zip.zip", "hashes": {"sha256": locks.fake_hash("zip")}}}
BY_URL = {
    "name": "url",
    "archive": {"url": f"{locks.FILES}/url-1.0-py3-none-any.whl", "hashes": {"sha256": locks.fake_hash("url")}},
}


def selected(folder: Path, settings: str, *packages: Any) -> Selection:
    """The selection from a lock next to these settings."""
    (folder / "pyproject.toml").write_text(f"[tool.uv]\n{settings}\n", encoding="utf-8")
    return select(locks.read(folder, *packages), debian())


@pytest.mark.parametrize(
    ("settings", "each", "words"),
    [
        ("no-build = true", SOURCE, "package 'src' 1.0 is marked as no-build but has no wheel"),
        ("no-build = true", GIT, "package 'lib' is marked as no-build"),
        ("no-build = true", ARCHIVE, "package 'zip' is marked as no-build"),
        ('no-build-package = ["SRC"]', SOURCE, "package 'src' 1.0 is marked as no-build"),
        ("no-binary = true", pure("one"), "package 'one' 1.0 is marked as no-binary but has no sdist"),
        ("no-binary = true", BY_URL, "package 'url' is marked as no-binary"),
        ('no-binary-package = ["one"]', pure("one"), "package 'one' 1.0 is marked as no-binary"),
        ("pip = { no-build = true }", SOURCE, "package 'src' 1.0 is marked as no-build"),
        ("pip = { only-binary = ['Src'] }", SOURCE, "package 'src' 1.0 is marked as no-build"),
        ("pip = { no-binary = [':all:'] }", pure("one"), "package 'one' 1.0 is marked as no-binary"),
        ('no-build = true\nno-binary-package = ["both"]', BOTH, "is marked as both no-build and no-binary"),
    ],
)
def test_what_uv_refuses(tmp_path: Path, settings: str, each: Any, words: str) -> None:
    """Broken: a package is planned in a way that the project forbids, and that uv refuses."""
    with pytest.raises(LockError) as raised:
        selected(tmp_path, settings, each)
    assert words in raised.value.what
    assert "[tool.uv]" in raised.value.hint


@pytest.mark.parametrize(
    ("settings", "artifact"),
    [
        ("", "wheel"),
        ("no-build = true", "wheel"),
        ("no-binary = true", "sdist"),
        ('no-binary-package = ["Both"]', "sdist"),
        ('no-binary-package = ["other"]', "wheel"),
        ('pip = { no-binary = ["both"] }', "sdist"),
        ('pip = { only-binary = [":all:"] }', "wheel"),
    ],
)
def test_wheel_or_sdist(tmp_path: Path, settings: str, artifact: str) -> None:
    """Broken: a package is installed from a wheel where uv builds it, or built where uv does not."""
    assert [each.artifact for each in selected(tmp_path, settings, BOTH).packages] == [artifact]


def test_settings_in_uv_toml(tmp_path: Path) -> None:
    """Broken: settings in uv.toml, which take the place of [tool.uv], are ignored."""
    (tmp_path / "uv.toml").write_text("no-binary = true\n", encoding="utf-8")
    assert [each.artifact for each in selected(tmp_path, "no-build = true", BOTH).packages] == ["sdist"]


@pytest.mark.parametrize("settings", ["no-build = 3", 'no-build-package = "src"', "no-binary-package = [3]"])
def test_settings_of_another_type(tmp_path: Path, settings: str) -> None:
    """Broken: a mistyped setting causes a traceback, or is ignored."""
    with pytest.raises(LockError, match=f"{settings.partition(' ')[0]} must be"):
        selected(tmp_path, settings, pure("one"))


BUILD = """\
config-settings = { editable = "strict" }
no-build-isolation-package = ["src", "other"]
config-settings-package = { src = { jobs = "4" }, other = { jobs = "1" } }
extra-build-dependencies = { Src = ["cython<3"], other = ["numpy"] }
extra-build-variables = { other = { FAST = "1" } }
"""


def test_settings_of_builds(tmp_path: Path) -> None:
    """Broken: a package is built without its settings, so that the build fails or a job cannot use its result."""
    assert selected(tmp_path, BUILD, SOURCE, pure("other")).uv_settings == {
        "config-settings": {"editable": "strict"},
        "config-settings-package": {"src": {"jobs": "4"}},
        "extra-build-dependencies": {"Src": ["cython<3"]},
        "no-build-isolation-package": ["src"],
        "index": [{"url": locks.INDEX, "default": True}],
    }


def test_settings_without_builds(tmp_path: Path) -> None:
    """Broken: settings for builds change the key of an image in which nothing is built."""
    assert selected(tmp_path, BUILD, package("other", "1.0", "py3-none-any")).uv_settings.keys() == {"index"}


def test_matrix_refuses_sources(tmp_path: Path) -> None:
    """Broken: `allow-source = false` is ignored, or refuses what has a wheel, or says to change the project."""
    lock = replace(locks.read(tmp_path, BOTH, SOURCE), allows_source=False)
    with pytest.raises(
        LockError, match=r"'src' 1\.0 has no wheel for this cell, and the matrix says allow-source"
    ) as error:
        select(lock, debian("3.12"))
    assert "both" not in str(error.value)
    assert "install.allow-source" in (error.value.hint or "")
