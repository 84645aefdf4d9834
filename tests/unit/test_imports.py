"""The order of packages: each imports only from those above it in ORDER, and no imports are circular."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import builder

ORDER = (
    ("errors", "contract", "folders", "memory", "redaction", "stopwatch", "terminal", "tally", "tree", "whole_file"),
    ("disk", "index_mirror"),
    ("parse", "process", "http", "login"),
    ("pace",),
    ("oci",),
    ("rootfs",),
    ("matrix",),
    ("lock",),
    ("engine",),
    ("image",),
    ("layer",),
    ("verify",),
    ("release",),
    ("gitlab",),
    ("start",),
    ("secret",),
    ("means", "request"),
    ("run", "rehearsal", "doctor"),
    ("publication", "rehearsal_unpacked"),
    ("reports", "pages"),
    ("cli",),
)
PACKAGES = tuple(package for floor in ORDER for package in floor)
ONLY_IN = {
    "docker": {"engine.docker", "engine.docker_client"},
    "subprocess": {"process", "verify.probes"},  # which runs inside images
    "click": {"cli"},
}
# A value that vouches for something, and the one function that makes it.
MADE_BY = {
    "VerifiedImage": "verify",
    "EngineImage": "find_verified",
    "PublishedImage": "push",
    "RegisteredImage": "image",
}

_FOLDER = Path(builder.__file__).parent
_FILES = tuple(sorted(path for path in _FOLDER.rglob("*.py") if path.parent != _FOLDER or path.stem[:2] != "__"))


def _name(path: Path) -> str:
    """The module's name below `builder`; for an `__init__`, that of its package."""
    parts = path.relative_to(_FOLDER).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(path: Path) -> Iterator[str]:
    """Every dotted name that the file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _own(path: Path) -> set[str]:
    """The names below `builder` that the file imports, without the symbols inside modules."""
    names = {name.removeprefix("builder.") for name in _imported(path) if name.startswith("builder.")}
    modules = {_name(file) for file in _FILES}
    return {found for name in names if (found := next((n for n in _prefixes(name) if n in modules), ""))}


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        yield ".".join(parts[:length])


def test_every_package_has_its_place() -> None:
    """Broken: a package is missing from the order, so that its imports are not checked."""
    assert {_name(path).split(".")[0] for path in _FILES} == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_from_above_only(package: str) -> None:
    """Broken: a package imports from one below or next to it in the order."""
    floor = next(number for number, names in enumerate(ORDER) if package in names)
    above = {name for names in ORDER[:floor] for name in names}
    for path in _FILES:
        if _name(path).split(".")[0] == package:
            assert {name.split(".")[0] for name in _own(path)} - {package} <= above, path


def test_no_circle_of_modules() -> None:
    """Broken: two modules of a package import each other, so that neither can be read or tested alone."""
    graph = {_name(path): _own(path) - {_name(path)} for path in _FILES}
    TopologicalSorter(graph).prepare()


def test_probes_import_nothing_of_builder() -> None:
    """Broken: a program that runs inside images imports something of builder that is not sent along with it."""
    probes = [*(_FOLDER / "verify" / "probes").glob("*.py"), *(_FOLDER / name for name in ("contract.py", "tree.py"))]
    steps = list((_FOLDER.parent / "dockerfiles").glob("*.py"))
    assert len(probes) > 3
    assert steps
    sent = {_name(path) for path in probes} | {"verify.probes"}
    assert not [name for path in probes for name in _own(path) if name not in sent]
    assert not [name for path in steps for name in _imported(path) if name.split(".")[0] == "builder"]


@pytest.mark.parametrize(("library", "homes"), ONLY_IN.items())
def test_library_has_one_home(library: str, homes: set[str]) -> None:
    """Broken: docker, click or subprocess is imported outside its one place."""
    users = {_name(path) for path in _FILES if library in {name.split(".")[0] for name in _imported(path)}}
    assert users
    assert {
        next((home for home in homes if user == home or user.startswith(f"{home}.")), user) for user in users
    } == homes


def test_network_is_reached_through_one_module() -> None:
    """Broken: another module creates HTTP sessions, without builder's time limits and CA bundle."""
    makers = {
        _name(path)
        for path in _FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "Session"
    }
    assert makers == {"http"}


@pytest.mark.parametrize(("kind", "maker"), MADE_BY.items())
def test_vouching_values_have_one_maker(kind: str, maker: str) -> None:
    """Broken: another function constructs the value that says that an image is verified or published."""
    makers = set()
    for path in _FILES:
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef):
                calls = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
                if any(isinstance(called, ast.Name) and called.id == kind for called in calls):
                    makers.add(function.name)
    assert makers == {maker}
