"""Build requirements of local packages; jobs install the packages themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from packaging.requirements import Requirement

from builder.errors import BuilderError, LockError
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


PASSWORD = "hunter2-hunter2"


@pytest.mark.parametrize(
    "requirement",
    [
        "hatchling\n--index-url https://evil.invalid/simple",
        "hatchling\n",
        "tool @ https://index.invalid/tool-1-py3-none-any.whl\n--index-url=https://evil.invalid",
        "hatchling; python_version > '3\n--index-url https://evil.invalid\n'",
        "hatchling; python_version > '3\u2028'",
        "hatch\x00ling",
        "--index-url https://evil.invalid",
        "-r other.txt",
        "./local",
        "",
        "hatchling # comment",
    ],
)
@pytest.mark.parametrize("key", ["requires", "build-constraint-dependencies"])
def test_requirement_that_is_none(tmp_path: Path, requirement: str, key: str) -> None:
    """Broken: a requirement with a line break becomes an option of uv, such as another index."""
    texts = {"requires": ["hatchling"], "build-constraint-dependencies": [], key: [requirement]}
    text = tomli_w.dumps(
        {
            "build-system": {"requires": texts["requires"], "build-backend": "hatchling.build"},
            "tool": {"uv": {"build-constraint-dependencies": texts["build-constraint-dependencies"]}},
        }
    )
    with pytest.raises(LockError, match=f"{key}: .* is not a requirement"):
        selection(tmp_path, local("app", "."), pyproject=text)


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        ("hatchling >= 1.27 ; python_version>'3'", "hatchling >= 1.27 ; python_version>'3'"),
        ("t[x]@https://jane:hunter2@index.invalid/t.whl", "t[x]@ https://index.invalid/t.whl"),
        ("t @ git+https://jane@index.invalid/t.git ; extra=='x'", 't@ git+https://index.invalid/t.git ; extra == "x"'),
        ("t @ git+ssh://git@index.invalid/t.git", "t@ git+ssh://git@index.invalid/t.git"),
        ("t @ https://index.invalid/t.whl#sha256=ab", "t@ https://index.invalid/t.whl#sha256=ab"),
    ],
)
def test_requirement_as_it_is_in_the_image(tmp_path: Path, requirement: str, expected: str) -> None:
    """Broken: the password of a build requirement is in the image, or the requirement is another one there."""
    text = tomli_w.dumps({"build-system": {"requires": [requirement], "build-backend": "hatchling.build"}})
    (system,) = selection(tmp_path, local("app", "."), pyproject=text).build_systems
    (found,) = system.requires
    assert Requirement(found) == Requirement(expected)
    assert "hunter2" not in found


@pytest.mark.parametrize("backend", ["a b", "a\nb", "a;b", "", "a:", ":a", "a..b", "--help"])
def test_backend_that_is_none(tmp_path: Path, backend: str) -> None:
    """Broken: the name of a build backend becomes an option, or more than one line."""
    text = tomli_w.dumps({"build-system": {"requires": ["hatchling"], "build-backend": backend}})
    with pytest.raises(LockError, match=r"build-backend .* is not the name"):
        selection(tmp_path, local("app", "."), pyproject=text)


SECRET_URLS = [
    f"https://index.invalid/simple?token={PASSWORD}",
    f"https://index.invalid/simple?{PASSWORD}",
    f"https://index.invalid/simple#private_token={PASSWORD}",
    f"https://index.invalid/{PASSWORD}/simple",  # a variable has it
    f"https://index.invalid/{PASSWORD.replace('-', '%2d')}/simple",
    "https://index.invalid/glpat-x1x2x3x4x5x6/simple",
    "https://dl.index.invalid/aBcD1234efGH5678/acme/python/simple",
    "https://index.invalid/simple\n",
]


@pytest.mark.parametrize("url", SECRET_URLS)
@pytest.mark.parametrize(
    "setting",
    [
        {"index": [{"url": ""}]},
        {"index-url": ""},
        {"extra-index-url": [""]},
    ],
)
def test_token_in_the_address_of_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, setting: dict[str, Any]
) -> None:
    """Broken: a token in the path or query of an index is in the build context and the image."""
    monkeypatch.setenv("INDEX_TOKEN", PASSWORD)
    text = tomli_w.dumps({"tool": {"uv": setting}}).replace('""', json.dumps(url))
    with pytest.raises(LockError, match=r"pyproject\.toml: (index|extra).*the URL of .*index\.invalid has") as raised:
        selection(tmp_path, pure("one"), pyproject=text)
    assert PASSWORD not in str(raised.value)


PUBLIC_FILES = [
    "ghp_import-2.1.0-py3-none-any.whl",
    "hf_xet-1.1.8-cp37-abi3-manylinux_2_28_x86_64.whl",
    "hf_transfer-0.1.9.tar.gz",
    "glfw-2.9.0-py2.py27.py3.py30-none-manylinux_2_28_x86_64.whl",
    "gldt-conversion-0.1.20261103-py3-none-any.whl",
    "npm_cli_wrappers_and_more_of_them-1.0-py3-none-any.whl",
    "github_pat_tools-2026.11.3-py3-none-any.whl",
    "eyJ_like_name-1.0-py3-none-any.whl",
]


@pytest.mark.parametrize("name", PUBLIC_FILES)
def test_file_whose_name_begins_like_a_token(tmp_path: Path, name: str) -> None:
    """Broken: a lock is refused for a package whose name begins as tokens of some service do."""
    one = pure("one")
    one["wheels"] = [{**one["wheels"][0], "name": "one-1.0-py3-none-any.whl", "url": f"https://files.invalid/{name}"}]
    (package,) = selection(tmp_path, one).packages
    assert package.name == "one"


@pytest.mark.parametrize("url", SECRET_URLS[:-2])
@pytest.mark.parametrize("place", ["index", "wheel", "vcs", "requires", "build setting"])
def test_token_in_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, place: str) -> None:
    """Broken: a token in an address of the lock or of the project is in the build context and the image."""
    monkeypatch.setenv("INDEX_TOKEN", PASSWORD)
    if url.endswith(f"?{PASSWORD}") and place != "index":
        url = f"https://index.invalid/simple?sig={PASSWORD}"
    one, pyproject = pure("one"), ""
    if place == "index":
        one["index"] = url
    elif place == "wheel":
        one["wheels"][0]["url"] = url
    elif place == "vcs":
        one = {"name": "one", "vcs": {"type": "git", "url": url, "commit-id": "ab" * 20}}
    elif place == "requires":
        pyproject = tomli_w.dumps({"build-system": {"requires": [f"t @ {url}"], "build-backend": "t"}})
    else:
        one = {"name": "one", "version": "1.0", "sdist": locks.sdist("one", "1.0")}
        pyproject = tomli_w.dumps({"tool": {"uv": {"config-settings": {"from": f"x {url}"}}}})
    with pytest.raises(LockError, match="which would be in the image"):
        selection(tmp_path, local("app", "."), one, pyproject=pyproject)


@pytest.mark.parametrize(
    "url",
    [
        "https://pkgs.index.invalid/acme/6f9619ff-8b86-d011-b42d-00cf4fc964ff/_packaging/Feed/pypi/simple",
        "https://gitlab.index.invalid/api/v4/projects/12345678/packages/pypi/simple",
        "https://index.invalid/artifactory/api/pypi/pypi-virtual-releases-2024/simple",
        "https://index.invalid/repository/MyCompanyRepository2024/simple/",
        "https://index.invalid/acme/python/simple",
        "http://localhost:8080/root/pypi/+simple/",
    ],
)
def test_ordinary_index(tmp_path: Path, url: str) -> None:
    """Broken: the address of an ordinary index is taken for one with a token."""
    found = selection(tmp_path, pure("one", index=url), pyproject=f'[tool.uv]\nindex-url = "{url}"\n')
    assert found.uv_settings == {"index-url": url}
    assert found.packages[0].index == url


def test_secret_among_build_settings(tmp_path: Path) -> None:
    """Broken: a secret that a build gets by a setting of uv is in the image's label and context."""
    sdist = {"name": "one", "version": "1.0", "sdist": locks.sdist("one", "1.0")}
    settings = {"extra-build-variables": {"one": {"LICENSE_TOKEN": "x"}}}
    with pytest.raises(LockError, match=r"extra-build-variables\.one\.LICENSE_TOKEN looks like a secret"):
        selection(tmp_path, sdist, pyproject=tomli_w.dumps({"tool": {"uv": settings}}))
    plain = {"extra-build-variables": {"one": {"FLAGS": "-I https://jane:hunter2@a.invalid/x"}}}
    found = selection(tmp_path, sdist, pyproject=tomli_w.dumps({"tool": {"uv": plain}}))
    assert found.uv_settings["extra-build-variables"] == {"one": {"FLAGS": "-I https://a.invalid/x"}}
