"""Build requirements of local packages; jobs install the packages themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builder.errors import BuilderError
from builder.lock.model import BuildSystem, Selection
from builder.lock.select import select
from tests import locks
from tests.cells import debian
from tests.locks import pure

HATCHLING = '[build-system]\nrequires = ["hatchling>=1.27"]\nbuild-backend = "hatchling.build"\n'


def local(name: str, path: str, **more: str) -> dict[str, Any]:
    """A package with its sources in a folder."""
    return {"name": name, "directory": {"path": path, **more}}


def selection(folder: Path, *packages: dict[str, Any], pyproject: str = "") -> Selection:
    """The selection from a lock of these packages next to a pyproject.toml."""
    (folder / "pyproject.toml").write_text(pyproject, encoding="utf-8")
    return select(locks.read(folder, *packages), debian())


def test_local_package_is_not_selected_but_its_build_system_is(tmp_path: Path) -> None:
    """Broken: the image contains the project itself, or the first offline build of the project fails."""
    found = selection(tmp_path, local("app", "."), pure("one"), pyproject=HATCHLING)
    assert [each.name for each in found.packages] == ["one"]
    assert found.build_systems == (
        BuildSystem(requires=("hatchling>=1.27",), backend="hatchling.build", constraints=()),
    )


def test_no_local_package_needs_no_build_system(tmp_path: Path) -> None:
    """Broken: the image contains a build system although no job builds the project."""
    assert selection(tmp_path, pure("one"), pyproject=HATCHLING).build_systems == ()


@pytest.mark.parametrize("pyproject", ["", '[project]\nname = "app"\n', None])
def test_setuptools_is_the_default(tmp_path: Path, pyproject: str | None) -> None:
    """Broken: a project without [build-system] does not build offline, although PEP 517 defines its default."""
    (tmp_path / "app").mkdir()
    if pyproject is not None:
        (tmp_path / "app" / "pyproject.toml").write_text(pyproject, encoding="utf-8")
    (system,) = selection(tmp_path, local("app", "app")).build_systems
    assert system.requires == ("setuptools >= 40.8.0",)
    assert system.backend == "setuptools.build_meta:__legacy__"


def test_members_with_one_build_system_share_it(tmp_path: Path) -> None:
    """Broken: a workspace of 60 members fills the cache 60 times."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        text = HATCHLING if name != "c" else HATCHLING.replace("hatchling>=1.27", "flit-core")
        (tmp_path / name / "pyproject.toml").write_text(text, encoding="utf-8")
    found = selection(tmp_path, *(local(name, name) for name in ("c", "b", "a")))
    assert [system.requires for system in found.build_systems] == [("flit-core",), ("hatchling>=1.27",)]


def test_package_in_a_subfolder(tmp_path: Path) -> None:
    """Broken: the build system is read from the wrong folder if the lock names a subdirectory."""
    (tmp_path / "repo" / "py").mkdir(parents=True)
    (tmp_path / "repo" / "py" / "pyproject.toml").write_text(HATCHLING, encoding="utf-8")
    (system,) = selection(tmp_path, local("app", "repo", subdirectory="py")).build_systems
    assert system.requires == ("hatchling>=1.27",)


def test_backend_in_the_sources_is_not_run(tmp_path: Path) -> None:
    """Broken: the image build runs a backend that exists only in a checkout."""
    text = '[build-system]\nrequires = ["wheel"]\nbuild-backend = "own"\nbackend-path = ["."]\n'
    (system,) = selection(tmp_path, local("app", "."), pyproject=text).build_systems
    assert (system.requires, system.backend) == (("wheel",), "")


def test_build_constraints_of_the_project(tmp_path: Path) -> None:
    """Broken: the cache contains a version of the backend other than the one that uv selects in the job."""
    text = HATCHLING + '[tool.uv]\nbuild-constraint-dependencies = ["hatchling==1.27.0"]\n'
    (system,) = selection(tmp_path, local("app", "."), pyproject=text).build_systems
    assert system.constraints == ("hatchling==1.27.0",)


def test_index_settings_of_the_project_without_credentials(tmp_path: Path) -> None:
    """Broken: backends come from an index other than the job's, or the image contains an index password."""
    text = """
[tool.uv]
index-url = "https://jane:hunter2@one.invalid/simple"
extra-index-url = ["https://jane:hunter2@two.invalid/simple"]
exclude-newer = "2026-01-01T00:00:00Z"
no-build-isolation = true
[[tool.uv.index]]
name = "three"
url = "https://jane:hunter2@three.invalid/simple"
default = true
"""
    assert selection(tmp_path, pure("one"), pyproject=text).uv_settings == {
        "index-url": "https://one.invalid/simple",
        "extra-index-url": ["https://two.invalid/simple"],
        "exclude-newer": "2026-01-01T00:00:00Z",
        "index": [{"name": "three", "url": "https://three.invalid/simple", "default": True}],
    }


def test_uv_toml_takes_precedence(tmp_path: Path) -> None:
    """Broken: settings are read from a table that uv itself ignores."""
    (tmp_path / "uv.toml").write_text('index-url = "https://own.invalid/simple"\n', encoding="utf-8")
    found = selection(tmp_path, pure("one"), pyproject='[tool.uv]\nindex-url = "https://other.invalid/simple"\n')
    assert found.uv_settings == {"index-url": "https://own.invalid/simple"}


def test_only_index_of_the_lock_is_the_default(tmp_path: Path) -> None:
    """Broken: although the lock uses a mirror, the image build asks the public index for backends."""
    assert selection(tmp_path, pure("one"), pure("two")).uv_settings == {
        "index": [{"url": locks.INDEX, "default": True}]
    }
    other = pure("two", index="https://other.invalid/simple")
    assert selection(tmp_path, pure("one"), other).uv_settings == {}


@pytest.mark.parametrize(
    "content",
    [
        b"[project\n",
        b"name = '\xff'\n",
        b"tool = 3\n",
        b"[tool]\nuv = 3\n",
        b"[tool.uv]\nindex = 3\n",
        b"[tool.uv]\nindex = ['x']\n",
        b"[tool.uv]\nindex-url = 3\n",
        b"build-system = 3\n",
        b"[build-system]\nrequires = 3\n",
        b"[build-system]\nrequires = [3]\n",
        b"[build-system]\nrequires = ['hatchling']\nbuild-backend = 3\n",
    ],
)
def test_broken_pyproject_is_named(tmp_path: Path, content: bytes) -> None:
    """Broken: a pyproject.toml with a value of the wrong type causes a traceback."""
    lock = locks.read(tmp_path, local("app", "."))
    (tmp_path / "pyproject.toml").write_bytes(content)
    with pytest.raises(BuilderError, match=r"pyproject\.toml") as raised:
        select(lock, debian())
    assert raised.value.exit_code == 2
