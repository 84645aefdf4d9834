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
    "gitlabfile",
    "gitlabjob",
    "pythonimage",
    "removal",
    "scriptline",
    "draft",
    "ownenv",
    "adopt",
    "terminal",
    "cli",
)
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
    parts = [name.split(".") for name in _imported(path)]
    return {names[1] for names in parts if names[0] == "builder" and len(names) > 1} & set(ORDER)


def test_every_module_has_its_place() -> None:
    """Broken: a module is in no place of the order, and may import, and be imported by, anything."""
    modules = {path.stem for path in _FOLDER.glob("*.py")} - {"__init__", "__main__"}
    assert modules == set(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_imports_from_above_only(module: str) -> None:
    """Broken: a module imports from one below it in the order."""
    above = set(ORDER[: ORDER.index(module)])
    assert _own(_FOLDER / f"{module}.py") <= above


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
