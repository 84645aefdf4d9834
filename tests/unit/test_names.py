"""Public names have one meaning."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import builder


def test_public_name_is_defined_once() -> None:
    """Broken: two modules define the same class or function name, and readers confuse them."""
    modules: dict[str, list[str]] = defaultdict(list)
    for path in sorted(Path(builder.__file__).parent.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                modules[node.name].append(path.name)
    assert len(modules) > 100
    assert {name: homes for name, homes in modules.items() if len(homes) > 1} == {}
