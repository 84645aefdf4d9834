"""`.ci/release`, which `make release` calls, without the image: in a clone, with this environment's tools."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSION = "99.2.0"  # no release that the clone may already have
NOTES = "- Backslashes stay: `\\n`."

pytestmark = pytest.mark.integration


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clean clone whose last commit has the release notes and the tag."""
    folder = tmp_path / "builder"
    subprocess.run(["git", "clone", "--quiet", ROOT.as_uri(), str(folder)], check=True)
    changelog = folder / "CHANGELOG.md"
    text = changelog.read_text(encoding="utf-8")
    changelog.write_text(text.replace("## ", f"## {VERSION} (2026-01-31)\n\n{NOTES}\n\n## ", 1), encoding="utf-8")
    _commit(folder)
    _git(folder, "tag", VERSION)
    return folder


def _git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Acme", "-c", "user.email=acme@example.com"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True)


def _commit(folder: Path) -> None:
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "--allow-empty", "--message=Release")


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command with the tools of this environment on PATH, as in a job of the pipeline."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "VIRTUAL_ENV": sys.prefix, "TOOLS": ""}
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def _refused(folder: Path, version: str = VERSION) -> str:
    """The message of a refusal; the script must not have prepared anything."""
    ran = _run(folder, ".ci/release", version)
    assert ran.returncode == 1
    assert not (folder / "dist").exists()
    return ran.stderr


def test_release_is_prepared(clone: Path) -> None:
    """Broken: a release lacks its notes, sdist, wheel or component, or they are of another version."""
    ran = _run(clone, ".ci/release", VERSION)
    assert ran.returncode == 0, ran.stderr
    dist = clone / "dist"
    assert (dist / "notes.md").read_text(encoding="utf-8") == f"{NOTES}\n"
    with zipfile.ZipFile(dist / f"prebuilt-{VERSION}-py3-none-any.whl") as wheel:
        metadata = HeaderParser().parsestr(wheel.read(f"prebuilt-{VERSION}.dist-info/METADATA").decode())
        commands = wheel.read(f"prebuilt-{VERSION}.dist-info/entry_points.txt").decode()
    assert (metadata["Name"], metadata["Version"]) == ("prebuilt", VERSION)
    assert commands.split() == [
        "[console_scripts]", "builder", "=", "builder.cli:main", "prebuilt", "=", "builder.cli:main",
    ]  # fmt: skip
    component = dist / f"component-{VERSION}"
    template = (component / "templates" / "prebuilt.yml").read_text(encoding="utf-8")
    assert template == (clone / "templates" / "prebuilt.yml").read_text(encoding="utf-8")
    assert (component / "README.md").is_file()
    assert f"git push origin {VERSION}" in ran.stdout


def test_sdist_builds_the_same_version_without_git(clone: Path, tmp_path: Path) -> None:
    """Broken: a build from the sdist has version 0.0.0, or needs git or the network."""
    assert _run(clone, ".ci/release", VERSION).returncode == 0
    subprocess.run(["tar", "-xzf", str(clone / "dist" / f"prebuilt-{VERSION}.tar.gz"), "-C", str(tmp_path)], check=True)
    out = tmp_path / "out"
    build = ["uv", "build", "--quiet", "--offline", "--no-build-isolation", "--wheel", "--out-dir", str(out)]
    ran = _run(tmp_path / f"prebuilt-{VERSION}", *build)
    assert ran.returncode == 0, ran.stderr
    assert [path.name for path in out.glob("*.whl")] == [f"prebuilt-{VERSION}-py3-none-any.whl"]


def test_archive_without_git_builds(clone: Path, tmp_path: Path) -> None:
    """Broken: `pip install .` fails in an unpacked archive of the repository, which has no tag."""
    folder = tmp_path / "archive"
    folder.mkdir()
    packed = subprocess.run(["git", "-C", str(clone), "archive", "HEAD"], check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed.stdout, check=True)
    ran = _run(folder, "make", "wheel", "TOOLS=")
    assert ran.returncode == 0, ran.stderr
    assert (folder / "dist" / "prebuilt-0.0.0-py3-none-any.whl").is_file()


def test_other_tags_do_not_name_the_version(clone: Path) -> None:
    """Broken: a newer tag of another form changes the version, or breaks every build."""
    for tag in ("v1", "100.0.0rc1", "100.0.0.1", "nightly"):
        _git(clone, "tag", tag)
    ran = _run(clone, sys.executable, "-m", "hatchling", "version")
    assert ran.stdout == f"{VERSION}\n", ran.stderr


@pytest.mark.parametrize("name", ["CHANGELOG.md", "builder/new.py"], ids=["changed", "untracked"])
def test_dirty_tree_is_refused(clone: Path, name: str) -> None:
    """Broken: a release contains changes that are not in the tag."""
    with (clone / name).open("a", encoding="utf-8") as file:
        file.write("\n")
    said = _refused(clone)
    assert "the working tree has changes" in said
    assert name in said


def test_missing_tag_is_refused(clone: Path) -> None:
    """Broken: a release is prepared without a tag."""
    assert "there is no tag 99.3.0; put it on the commit to release: git tag 99.3.0" in _refused(clone, "99.3.0")


def test_tag_elsewhere_is_refused(clone: Path) -> None:
    """Broken: a release is built from a commit later than its tag."""
    _commit(clone)
    assert f"the tag {VERSION} is not at HEAD" in _refused(clone)


def test_second_tag_is_refused(clone: Path) -> None:
    """Broken: with two tags on a commit, the notes and the package have different versions."""
    changelog = clone / "CHANGELOG.md"
    text = changelog.read_text(encoding="utf-8").replace("## ", "## 99.10.0\n\n- More.\n\n## ", 1)
    changelog.write_text(text, encoding="utf-8")
    _commit(clone)
    _git(clone, "tag", "--force", VERSION)
    _git(clone, "tag", "99.10.0")
    refused = [version for version in (VERSION, "99.10.0") if _run(clone, ".ci/release", version).returncode]
    assert len(refused) == 1


@pytest.mark.parametrize("text", ["", "1.2", "v1.2.3", "1.2.3rc1"])
def test_what_is_no_version_is_refused(clone: Path, text: str) -> None:
    """Broken: a version is prepared that the catalog, or the tag's pipeline, rejects."""
    assert "make release VERSION=1.2.3" in _refused(clone, text)


def test_missing_release_notes_are_refused(clone: Path) -> None:
    """Broken: a release has no notes."""
    changelog = clone / "CHANGELOG.md"
    text = changelog.read_text(encoding="utf-8").replace(f"## {VERSION} (2026-01-31)", "## 0.0.1")
    changelog.write_text(text, encoding="utf-8")
    _commit(clone)
    _git(clone, "tag", "--force", VERSION)
    assert f"CHANGELOG.md has no text under '## {VERSION}'" in _refused(clone)
