"""The one direction of the house: a module imports only from those above it in ORDER."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import builder

ORDER = (
    "errors",
    "refs",
    "command",
    "network",
    "matrix",
    "index",
    "requirements",
    "lock",
    "plan",
    "render",
    "inputs",
    "credentials",
    "registry",
    "standing",
    "buildx",
    "engine",
    "attestation",
    "archive",
    "remote",
    "build",
    "secrets",
    "checkout",
    "verify",
    "publish",
    "promote",
    "diff",
    "prune",
    "gitlab",
    "pipeline",
    "adoption",
    "terminal",
    "cli",
)
ADOPTION = ("file", "job", "script", "image", "removal", "draft", "venv", "adopt")
ONLY_IN = {"docker": "engine", "click": "cli", "subprocess": "command"}

_FOLDER = Path(builder.__file__).parent


def _imported(path: Path) -> Iterator[str]:
    """Every dotted name that the file imports, at its top, in functions and for type checkers."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _own(path: Path) -> set[str]:
    """The modules of builder that the file imports."""
    return _below("builder", path) & set(ORDER)


def _below(package: str, path: Path) -> set[str]:
    names = [name.removeprefix(f"{package}.") for name in _imported(path) if name.startswith(f"{package}.")]
    return {name.split(".")[0] for name in names}


def test_every_module_has_its_place() -> None:
    """Broken: a module is in no place of the order, and may import, and be imported by, anything."""
    modules = {path.stem for path in _FOLDER.glob("*.py")} - {"__init__", "__main__"}
    assert modules | {"adoption"} == set(ORDER)
    assert {path.stem for path in (_FOLDER / "adoption").glob("*.py")} == {"__init__", *ADOPTION}


@pytest.mark.parametrize("module", ORDER)
def test_imports_from_above_only(module: str) -> None:
    """Broken: a module imports from one below it in the order."""
    above = set(ORDER[: ORDER.index(module)])
    package = _FOLDER / module
    for path in package.glob("*.py") if package.is_dir() else [package.with_suffix(".py")]:
        assert _own(path) - {module} <= above


@pytest.mark.parametrize("module", ADOPTION)
def test_adoption_imports_from_above_only(module: str) -> None:
    """Broken: a module of the package imports from one below it in the order."""
    above = set(ADOPTION[: ADOPTION.index(module)])
    assert _below("builder.adoption", _FOLDER / "adoption" / f"{module}.py") <= above


def test_probes_import_nothing_of_builder() -> None:
    """Broken: a probe, which runs inside images, needs builder there."""
    probes = sorted((_FOLDER / "probes").glob("*.py"))
    assert probes
    assert not [name for path in probes for name in _imported(path) if name.split(".")[0] == "builder"]


@pytest.mark.parametrize(("library", "home"), ONLY_IN.items())
def test_library_has_one_home(library: str, home: str) -> None:
    """Broken: docker, click or processes are used outside the one module that they belong to."""
    users = {path.stem for path in _FOLDER.rglob("*.py") if library in {n.split(".")[0] for n in _imported(path)}}
    assert users == {home}
