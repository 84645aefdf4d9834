"""What `builder plan` says about all cells and packages before anything is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.cli.output.preflight import preflight_json, preflight_text
from builder.lock.host import describe_hosts
from builder.lock.preflight import Finding, Preflight, preflight, preflight_error
from builder.matrix.model import Cell
from builder.matrix.schema import Family
from builder.oci.reference import ImageRef
from tests import locks
from tests.cells import alpine, debian
from tests.locks import package, pure, sdist

GLIBC_ONLY = package("torch", "2.0", "cp312-cp312-manylinux_2_28_x86_64", "cp313-cp313-manylinux_2_28_x86_64")
GIT = {"name": "lib", "vcs": {"type": "git", "url": "https://git.invalid/lib.git", "commit-id": "c0ffee" * 6 + "c0ff"}}


def source(name: str, *tags: str) -> dict[str, Any]:
    """A package with an sdist, and wheels with these tags."""
    return {**package(name, "1.0", *tags), "sdist": sdist(name, "1.0")}


def found(folder: Path, cells: list[Cell], *packages: Mapping[str, Any], **more: Any) -> Preflight:
    """The preflight of a lock of these packages."""
    return preflight(dict.fromkeys(cells, locks.read(folder, *packages, **more)))


def finding(checked: Preflight, name: str | None, number: int = 0) -> Finding:
    """What was found for a package in the cell with this number."""
    (each,) = [each for each in checked.cells[number].findings if each.name == name]
    return each


def test_one_bad_cell_does_not_hide_the_others(tmp_path: Path) -> None:
    """Broken: users repair one package in one cell, run builder again, and get the next fault."""
    lock = locks.read(tmp_path, pure("one"), GLIBC_ONLY, package("gpu", "3.0"))
    checked = preflight(dict.fromkeys([debian("3.12"), alpine("3.12"), alpine("3.13")], lock))
    assert checked.good == ()
    error = preflight_error(checked)
    assert error is not None
    head, *lines, _ = str(error).splitlines()
    assert head.endswith("does not cover the cells 3.12-bookworm-slim, 3.12-alpine, 3.13-alpine:")
    assert [line.split(":")[0].strip() for line in lines] == [
        "3.12-bookworm-slim, 3.12-alpine, 3.13-alpine",
        "3.12-alpine, 3.13-alpine",
    ]
    assert [each.cell.name for each in found(tmp_path, [debian(), alpine()], GLIBC_ONLY).cells] == [
        "3.12-bookworm-slim",
        "3.12-alpine",
    ]


def test_good_cells(tmp_path: Path) -> None:
    """Broken: cells that can be built are not planned because another one cannot."""
    checked = found(tmp_path, [debian("3.12"), alpine("3.12"), debian("3.11")], GLIBC_ONLY, pure("one"))
    assert [cell.name for cell in checked.good] == ["3.12-bookworm-slim"]
    assert finding(checked, "one", 1).way == "wheel"


def test_who_requires_it_and_what_would_do(tmp_path: Path) -> None:
    """Broken: users must find out themselves who needs a package, and where it could be installed."""
    vision = pure("vision", dependencies=[{"name": "torch"}])
    lock = locks.read(tmp_path, GLIBC_ONLY, vision)
    checked = preflight(dict.fromkeys([debian("3.12"), alpine("3.12"), debian("3.10")], lock))
    assert finding(checked, "torch", 1).required_by == ("vision",)
    assert finding(checked, "torch", 1).nearest == ("3.12-bookworm-slim",)
    assert finding(checked, "torch", 2).nearest == ("3.12-bookworm-slim", "3.13-bookworm-slim")
    error = str(preflight_error(checked))
    assert "only glibc; required by vision; 3.12-bookworm-slim could install it" in error


def test_cell_outside_requires_python(tmp_path: Path) -> None:
    """Broken: a Python that the lock excludes is reported once for each package, or hides the other cells."""
    checked = found(tmp_path, [debian("3.9"), debian("3.12")], pure("one"), requires_python=">=3.10")
    assert finding(checked, None).reason == "Python 3.9 is outside requires-python '>=3.10'"
    assert [cell.name for cell in checked.good] == ["3.12-bookworm-slim"]


def of(family: Family, image: str) -> Cell:
    """A cell of another family."""
    return replace(debian(), family=family, image=ImageRef.from_str(f"registry.example/{image}"))


@pytest.mark.parametrize(
    ("cell", "each", "missing"),
    [
        (debian(), source("uwsgi"), ("gcc", "libc6-dev")),
        (alpine(), source("lxml"), ("gcc", "libxml2-dev", "libxslt-dev", "musl-dev")),
        (debian(packages=("build-essential",)), source("uwsgi"), ()),
        (debian(build_packages=("gcc", "libc6-dev")), source("uwsgi"), ()),
        (debian(packages=("git",), build_packages=("build-essential",)), GIT, ()),
        (debian(packages=("gcc=4:12.2.0-3", "libc6-dev")), source("uwsgi"), ()),
        (debian(), source("unknown", "cp39-cp39-manylinux_2_17_x86_64"), ("gcc", "libc6-dev")),
        (debian(), source("unknown", "py2-none-any"), ()),
        (debian(), source("unknown"), ()),
        (debian(), GIT, ("git",)),
        (alpine(packages=("git",)), GIT, ()),
        (replace(debian(), image=ImageRef.from_str("python:3.12-bookworm")), source("uwsgi"), ()),
        (of("rhel", "ubi9/ubi-minimal"), source("psycopg2"), ("gcc", "glibc-devel", "libpq-devel")),
        (of("rhel", "ubi9/python-312"), source("psycopg2"), ()),
        (of("wolfi", "wolfi-base"), source("cryptography"), ("build-base", "openssl-dev", "pkgconf", "rust")),
        (of("wolfi", "wolfi-base"), source("uwsgi"), ("build-base",)),
    ],
)
def test_system_packages(tmp_path: Path, cell: Cell, each: Mapping[str, Any], missing: tuple[str, ...]) -> None:
    """Broken: a build fails for want of a compiler, a library or git that the plan could have named."""
    each_found = finding(found(tmp_path, [cell], each), each["name"])
    assert (each_found.way, each_found.missing) == ("build", missing)


def test_why_it_is_built(tmp_path: Path) -> None:
    """Broken: users do not see why a package with wheels is built from source."""
    checked = found(tmp_path, [debian("3.13")], source("fast", "cp311-cp311-manylinux_2_17_x86_64"))
    assert finding(checked, "fast").reason == "its wheels do not fit: only cp311"


def test_wheels_that_the_project_does_not_want(tmp_path: Path) -> None:
    """Broken: a package that must be built, by a setting, is said to have no fitting wheel."""
    (tmp_path / "pyproject.toml").write_text('[tool.uv]\nno-binary-package = ["Fast"]\n', encoding="utf-8")
    checked = found(tmp_path, [debian("3.13")], source("fast", "py3-none-any"))
    assert finding(checked, "fast").reason == "its wheels are not to be used: no-binary"


def test_text(tmp_path: Path) -> None:
    """Broken: the table of packages and cells lacks something, or lists packages that need no attention."""
    checked = found(tmp_path, [debian(), alpine()], pure("one"), GLIBC_ONLY, source("uwsgi"))
    built = "is built from source (it has no wheel): add"
    assert preflight_text(checked, describe_hosts(checked.hosts, {"files.invalid"}, ask=False)).splitlines() == [
        "          3.12-bookworm-slim 3.12-alpine",
        "torch 2.0 wheel              impossible",
        "uwsgi 1.0 build              build",
        f"uwsgi 1.0 on bookworm-slim {built} gcc, libc6-dev to bases.bookworm-slim.build-packages",
        f"uwsgi 1.0 on alpine {built} gcc, linux-headers, musl-dev to bases.alpine.build-packages",
        "hosts: files.invalid (has a credential), index.invalid",
    ]


def test_text_of_wheels_only(tmp_path: Path) -> None:
    """Broken: a plan in which everything is a wheel is longer than it must be."""
    assert preflight_text(found(tmp_path, [debian()], pure("one")), []) == ""


def test_json(tmp_path: Path) -> None:
    """Broken: the preflight in `builder plan --json` lacks packages, or has other keys or values."""
    checked = found(tmp_path, [debian(), alpine()], pure("one"), GLIBC_ONLY)
    table = preflight_json(checked, describe_hosts(checked.hosts, (), ask=False))
    assert [(cell["name"], cell["can_be_built"], len(cell["packages"])) for cell in table["cells"]] == [
        ("3.12-bookworm-slim", True, 2),
        ("3.12-alpine", False, 2),
    ]
    assert table["cells"][1]["packages"][1] == {
        "name": "torch",
        "version": "2.0",
        "way": "impossible",
        "reason": "no wheel found for package 'torch' 2.0, and no sdist available: only glibc",
        "missing_system_packages": [],
        "required_by": [],
        "nearest_cells": ["3.12-bookworm-slim"],
        "is_yanked": False,
    }
    assert table["hosts"][0] == {"name": "files.invalid", "has_credential": False, "answer": None}
