"""Pythons that uv installs: which one a cell gets, what it can install, and what that changes in the image."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from packaging.tags import Tag
from packaging.utils import parse_wheel_filename

from builder.errors import CommandError, MatrixError, UsageError
from builder.image.inputs import ImageInputs
from builder.image.render import render
from builder.layer.plan import LayerPlan
from builder.lock.environment import marker_environment, wheel_tags
from builder.lock.uv_python import choose_pythons
from builder.matrix.file import parse_matrix
from builder.matrix.interpreter import Interpreter, UvPython
from builder.matrix.model import Cell, Matrix
from tests import cells
from tests.layers import chosen, image_plan, layers_of

MATRIX = """\
python = ["{python}"]
base = ["bare"]
uv = "0.13.8"

[bases.bare]
image = "{image}"
python-source = "uv"
"""
DEBIAN = "debian:bookworm-slim"
ALPINE = "alpine:3.20"


def matrix_of(python: str, image: str = DEBIAN) -> Matrix:
    """A matrix with one cell, for linux/amd64."""
    return parse_matrix('platform = "linux/amd64"\n' + MATRIX.format(python=python, image=image), source="matrix.toml")


def download(version: str, archive: str = "", **changes: Any) -> dict[str, Any]:
    """An entry of `uv python list`, of a CPython unless changed."""
    entry = {
        "os": "linux", "arch": "x86_64", "libc": "gnu", "implementation": "cpython", "variant": "default", **changes,
    }  # fmt: skip
    name = f"{entry['implementation']}-{version}" + ("+freethreaded" if entry["variant"] != "default" else "")
    key = f"{name}-{entry['os']}-{entry['arch']}-{entry['libc']}"
    url = f"https://pythons.example/20261110/{archive or f'{name}%2B20261110.tar.gz'}"
    return {"key": key, "version": version, "path": None, "symlink": None, "url": url, **entry}


# As uv lists them for the requests 3.13, 3.13t and pypy3.11.
USUAL = [download("3.13.18"), download("3.13.18", libc="musl"), download("3.13.18", arch="aarch64"),
         download("3.13.18", arch="x86_64_v3"), download("3.13.18", os="macos", libc="none"), download("3.13.2"),
         download("3.13.0", implementation="graalpy")]  # fmt: skip
FREE = [download("3.13.18", variant="freethreaded"), download("3.13.18")]
PYPY = [download("3.11.17", "pypy3.11-v8.0.1-linux64.tar.bz2", implementation="pypy"),
        download("3.11.15", "pypy3.11-v7.3.23-linux64.tar.bz2", implementation="pypy")]  # fmt: skip
LISTINGS = {"3.13": USUAL, "3.13.2": USUAL, "3.13t": FREE, "pypy3.11": PYPY, "pypy3.11.15": PYPY}


def resolved(python: str, image: str = DEBIAN) -> Cell:
    """The cell of such a Python, with the exact one."""
    matrix = choose_pythons(matrix_of(python, image), {python: json.dumps(LISTINGS[python])})
    return matrix.cells[0]


@pytest.mark.parametrize(
    ("python", "image", "key", "release"),
    [
        ("3.13", DEBIAN, "cpython-3.13.18-linux-x86_64-gnu", "3.13.18"),
        ("3.13", ALPINE, "cpython-3.13.18-linux-x86_64-musl", "3.13.18"),
        ("3.13.2", DEBIAN, "cpython-3.13.2-linux-x86_64-gnu", "3.13.2"),
        ("3.13t", DEBIAN, "cpython-3.13.18+freethreaded-linux-x86_64-gnu", "3.13.18"),
        ("pypy3.11", DEBIAN, "pypy-3.11.17-linux-x86_64-gnu", "8.0.1"),
        ("pypy3.11.15", DEBIAN, "pypy-3.11.15-linux-x86_64-gnu", "7.3.23"),
    ],
)
def test_exact_python(python: str, image: str, key: str, release: str) -> None:
    """Broken: a cell gets a Python for another platform, of another kind, or an older one than there is."""
    found = resolved(python, image).uv_python
    assert found
    assert (found.key, found.release) == (key, release)


@pytest.mark.parametrize(
    ("python", "image", "words"),
    [
        (
            "pypy3.11",
            ALPINE,
            "uv 0.13.8 has no Python pypy3.11 for linux/amd64 with musl, which the cell pypy3.11-bare",
        ),
        ("3.13", "ubuntu:24.04", ""),
    ],
)
def test_python_that_uv_does_not_have(python: str, image: str, words: str) -> None:
    """Broken: a cell whose Python does not exist is planned, or the error does not name it."""
    matrix = matrix_of(python, image)
    if not words:
        assert choose_pythons(matrix, {python: json.dumps(USUAL)}).cells[0].uv_python
        return
    with pytest.raises(MatrixError, match=words):
        choose_pythons(matrix, {python: json.dumps(LISTINGS[python])})


def test_list_of_a_company_that_cannot_be_used() -> None:
    """Broken: a malformed list of Pythons ends in a traceback, or writes whatever it says into a Dockerfile."""
    with pytest.raises(CommandError, match="prints something else than Pythons"):
        choose_pythons(matrix_of("3.13"), {"3.13": '[{"key": 1}]'})
    with pytest.raises(UsageError, match="which is none"):
        choose_pythons(matrix_of("3.13"), {"3.13": json.dumps([download("3.13.1", "a%0ARUN%20evil.tar")])})
    with pytest.raises(UsageError, match="does not tell PyPy's version"):
        choose_pythons(
            matrix_of("pypy3.11"), {"pypy3.11": json.dumps([download("3.11.2", "p.tar", implementation="pypy")])}
        )


@pytest.mark.parametrize("python", ["3.13t", "pypy3.11"])
def test_python_that_no_base_has(python: str) -> None:
    """Broken: a free-threaded Python or PyPy on a base with its own Python is planned as the usual one."""
    text = MATRIX.format(python=python, image=DEBIAN).replace('python-source = "uv"\n', "")
    with pytest.raises(MatrixError, match=rf"bases.bare.python-source: {python} can only come from uv; write python-"):
        parse_matrix(text, source="matrix.toml")
    excluded = f'exclude = [{{ python = "{python}" }}]\n' + text.replace(f'"{python}"]', f'"3.13", "{python}"]', 1)
    assert [cell.name for cell in parse_matrix(excluded, source="matrix.toml").cells] == ["3.13-bare"]


@pytest.mark.parametrize("text", ["3.13tt", "pypy3.11t", "pypy@3.11", "t", "2.7", "3.13.2.1", "cpython3.13"])
def test_what_is_no_python(text: str) -> None:
    """Broken: a Python that uv or tags could not name is taken."""
    with pytest.raises(ValueError, match="is not a Python version"):
        Interpreter.from_str(text)


def test_markers_know_implementation_and_patch_release() -> None:
    """Broken: markers are evaluated as for CPython, or for a patch release that the image does not have."""
    pypy = marker_environment(resolved("pypy3.11"))
    assert (pypy["implementation_name"], pypy["platform_python_implementation"]) == ("pypy", "PyPy")
    assert (pypy["implementation_version"], pypy["python_full_version"]) == ("8.0.1", "3.11.17")
    free = marker_environment(resolved("3.13t"))
    assert (free["implementation_name"], free["python_full_version"], free["python_version"]) == (
        "cpython", "3.13.18", "3.13",
    )  # fmt: skip


# Wheels as projects have them on the index: markupsafe, cffi, numpy, cryptography, ruff, orjson.
WHEELS = {
    "usual": "markupsafe-3.0.3-cp313-cp313-manylinux_2_17_x86_64.manylinux2014_x86_64.manylinux_2_28_x86_64.whl",
    "free": "markupsafe-3.0.3-cp313-cp313t-manylinux_2_17_x86_64.manylinux2014_x86_64.manylinux_2_28_x86_64.whl",
    "stable": "cryptography-46.0.3-cp311-abi3-manylinux_2_34_x86_64.whl",
    "pypy": "numpy-2.3.4-pp311-pypy311_pp73-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
    "older pypy": "orjson-3.10.0-pp310-pypy310_pp73-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    "any python": "ruff-0.14.6-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    "pure": "idna-3.11-py3-none-any.whl",
}


@pytest.mark.parametrize(
    ("python", "fitting"),
    [
        ("3.13", {"usual", "stable", "any python", "pure"}),
        ("3.13t", {"free", "any python", "pure"}),
        ("pypy3.11.15", {"pypy", "any python", "pure"}),
        ("pypy3.11", {"any python", "pure"}),  # of PyPy 8, whose ABI is another
    ],
)
def test_wheels_that_fit(python: str, fitting: set[str]) -> None:
    """Broken: a wheel for another ABI is installed, or one that fits is not found."""
    supported = set(wheel_tags(resolved(python)))
    assert {name for name, file in WHEELS.items() if parse_wheel_filename(file)[-1] & supported} == fitting


def test_order_of_tags_of_pypy() -> None:
    """Broken: a pure wheel is preferred to one that was compiled for PyPy."""
    tags = list(wheel_tags(resolved("pypy3.11.15")))
    assert tags[0] == Tag("pp311", "pypy311_pp73", "manylinux_2_36_x86_64")
    assert tags.index(Tag("pp311", "pypy311_pp73", "linux_x86_64")) < tags.index(Tag("py3", "none", "any"))


def layers(cell: Cell, **changes: Any) -> LayerPlan:
    """The layers of an image of the cell with a package for any platform."""
    return layers_of([chosen("pure")], cell, **changes)


def keys(plan: LayerPlan) -> dict[str, str]:
    """The keys by kind."""
    return {layer.kind: layer.key for layer in plan.layers}


def test_layers_on_another_base() -> None:
    """Broken: another base, or a new digest of it, makes Python, its bytecode or the environment again."""
    cell = resolved("3.13")
    one = keys(layers(cell))
    other = keys(layers(replace(cell, base="other"), base=cell.image.with_digest(image_plan([]).uv.digest)))  # type: ignore[arg-type]
    assert list(one) == ["uv", "python", "stdlib", "environment", "wheels"]
    assert one == other


def test_layers_of_another_python() -> None:
    """Broken: layers of one Python are taken for those of another one, or of another build of it."""
    cell = resolved("3.13")
    assert cell.uv_python
    usual, free = keys(layers(cell)), keys(layers(resolved("3.13t")))
    assert {kind for kind in usual if usual[kind] == free[kind]} == {"uv"}
    again = replace(cell.uv_python, archive="cpython-3.13.18+20261201.tar.gz")
    rebuilt = keys(layers(replace(cell, uv_python=again)))
    # A wheel's files depend on the version alone, so that images with a Python of their own have them too.
    assert {kind for kind in usual if usual[kind] == rebuilt[kind]} == {"uv", "wheels"}
    official = keys(layers_of([chosen("pure")], cells.debian("3.13"), interpreter="3.13.18"))
    assert official["wheels"] == usual["wheels"]


def test_image_says_which_python_it_has() -> None:
    """Broken: neither the image nor its inputs, by which a rebuild is explained, tell the exact Python."""
    image = render(image_plan([chosen("pure")], resolved("3.13t")))
    assert image.plan.labels["io.gitlab.prebuilt.python"] == "cpython-3.13.18+freethreaded"
    assert image.plan.environment["PYTHON_VERSION"] == "3.13.18"
    settings = ImageInputs.of(image).settings
    archive = "cpython-3.13.18+freethreaded+20261110.tar.gz"
    assert settings["python from uv"] == f"cpython-3.13.18+freethreaded-linux-x86_64-gnu of {archive}"
    dockerfile = dict(image.files)["Dockerfile"].decode()
    assert archive in dockerfile
    assert "pythons.example" not in dockerfile


def test_names_on_path() -> None:
    """Broken: programs do not find Python by the names that images of the same kind have."""
    of = {python: resolved(python).uv_python for python in ("3.13", "3.13t", "pypy3.11")}
    links = {python: set(found.links) for python, found in of.items() if isinstance(found, UvPython)}
    common = {"python", "python3"}
    assert links == {
        "3.13": common | {"python3.13"}, "3.13t": common | {"python3.13", "python3.13t"},
        "pypy3.11": common | {"python3.11", "pypy3", "pypy3.11"},
    }  # fmt: skip
