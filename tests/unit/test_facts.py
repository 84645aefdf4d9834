"""`facts.toml`: what refreshes it, what the tools know of the same things, and that the code repeats none of it."""

from __future__ import annotations

import ast
import datetime
import importlib.resources
import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from trove_classifiers import classifiers

import builder
from builder.lock.environment import wheel_tags
from builder.matrix.facts import GLIBC, MUSL, NEWEST_PYTHON, OLDEST_PYTHON
from builder.matrix.model import Cell
from tests.cells import alpine, debian

_FOLDER = Path(builder.__file__).parent
_NEWEST_GLIBC = max(GLIBC.values(), key=Version)
_TODAY = datetime.date(2024, 4, 30)

_DEBIAN = """\
version,codename,series,created,release,eol
10,Buster,buster,2017-06-17,2019-07-06,2022-09-10
11,Bullseye,bullseye,2019-07-06,2021-08-14,2024-08-14
12,Bookworm,bookworm,2021-08-14,2023-06-10,2026-06-10
13,Trixie,trixie,2023-06-10,2025-08-09
,Sid,sid,1993-08-16
"""


@pytest.fixture(scope="module")
def script(repository_root: Path) -> dict[str, Any]:
    """What `.ci/refresh-facts` defines."""
    return runpy.run_path(str(repository_root / ".ci" / "refresh-facts"))


def test_file_is_as_the_script_writes_it(script: dict[str, Any]) -> None:
    """Broken: `make facts` loses what somebody wrote into the file by hand."""
    text = (_FOLDER / "matrix" / "facts.toml").read_text(encoding="utf-8")
    assert script["render"](tomli.loads(text)) == text


def test_newest_python_is_a_final_release(script: dict[str, Any]) -> None:
    """Broken: projects without a matrix get a Python that is not out yet, or that is no CPython."""
    listed = [
        {"implementation": "cpython", "version": "3.16.0a2"},
        {"implementation": "cpython", "version": "3.9.21"},
        {"implementation": "cpython", "version": "3.15.0"},
        {"implementation": "pypy", "version": "7.3.20"},
    ]
    assert script["newest_python"](json.dumps(listed)) == "3.15"


def test_releases_are_those_that_are_out(script: dict[str, Any]) -> None:
    """Broken: the archive is asked for suites that are not there yet, or that image names no longer speak of."""
    found = script["releases"](_DEBIAN, {"bullseye": "2.31"}, _TODAY)
    assert [(release.series, release.version) for release in found] == [("bullseye", "11"), ("bookworm", "12")]


def test_pythons_are_real() -> None:
    """Broken: a project without a matrix gets a Python that there is not."""
    named = {f"Programming Language :: Python :: 3.{minor}" for minor in range(OLDEST_PYTHON, NEWEST_PYTHON + 1)}
    assert named
    assert named <= classifiers


def test_musl_is_the_newest() -> None:
    """Broken: there are wheels for a newer musl, and facts.toml knows no Alpine that takes them."""
    assert max(version for _, version in _policies("musllinux", "x86_64")) == Version(MUSL)


def test_newest_glibc_is_known() -> None:
    """Broken: there are wheels for a newer glibc, and facts.toml knows no release that takes them."""
    assert max(version for _, version in _policies("manylinux", "x86_64")) <= Version(_NEWEST_GLIBC)


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        (debian(libc=_NEWEST_GLIBC), "manylinux"),
        (debian(libc=_NEWEST_GLIBC, architecture="arm64"), "manylinux"),
        (debian(libc="2.28"), "manylinux"),
        (alpine(libc=MUSL), "musllinux"),
    ],
    ids=["glibc", "glibc-arm64", "old-glibc", "musl"],
)
def test_cells_take_the_wheels_of_every_policy(cell: Cell, kind: str) -> None:
    """Broken: a wheel that runs on the image is passed over, or one that needs a newer libc is taken."""
    machine = cell.platform.machine
    known = dict(_policies(kind, machine))
    taken = {tag.platform.removesuffix(f"_{machine}") for tag in wheel_tags(cell)}
    assert taken & known.keys() == {name for name, version in known.items() if version <= Version(cell.libc)}


def _policies(kind: str, machine: str) -> Iterator[tuple[str, Version]]:
    """The names and aliases of auditwheel's policies for this machine, with their libc."""
    text = (importlib.resources.files("auditwheel.policy") / f"{kind}-policy.json").read_text(encoding="utf-8")
    for policy in json.loads(text):
        if machine in policy["symbol_versions"]:
            version = Version(policy["name"].removeprefix(f"{kind}_").replace("_", "."))
            yield from ((name, version) for name in (policy["name"], *policy["aliases"]))


@pytest.mark.parametrize(
    "path", sorted(_FOLDER.rglob("*.py")), ids=lambda path: path.relative_to(_FOLDER).with_suffix("").as_posix()
)
def test_code_repeats_no_fact(path: Path) -> None:
    """Broken: `make facts` refreshes the file, and the code goes on with a copy of what stood there."""
    facts = {*GLIBC, *GLIBC.values(), MUSL, f"3.{NEWEST_PYTHON}", f"3.{OLDEST_PYTHON}"}
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    strings = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert not facts & strings


def test_own_pythons_are_those_of_the_classifiers(repository_root: Path) -> None:
    """Broken: the index shows other Pythons for this package than it installs on."""
    project = tomli.loads((repository_root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = re.findall(r"Programming Language :: Python :: (3\.\d+)$", "\n".join(project["classifiers"]), re.MULTILINE)
    required = SpecifierSet(project["requires-python"])
    assert named[0] == min(filter(required.contains, (f"3.{minor}" for minor in range(30))), key=Version)
    assert [Version(each).minor for each in named] == [*range(Version(named[0]).minor, Version(named[-1]).minor + 1)]
