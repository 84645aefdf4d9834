"""Recipes for other tools: what they look for is what builder writes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from builder.gitlab.images import JobImage, jobs_yaml
from builder.matrix.file import parse_matrix
from builder.oci.reference import Digest
from tests import locks
from tests.commandline import builder
from tests.matrices import EXAMPLE, SMALL
from tests.plans import REPOSITORY

DIGEST = Digest(algorithm="sha256", hex="d1" * 32)


@pytest.fixture
def managers(repository_root: Path) -> list[Any]:
    """The managers of the recipe for Renovate."""
    text = (repository_root / "examples/updates/renovate.json").read_text(encoding="utf-8")
    found: list[Any] = json.loads(text)["customManagers"]
    return found


def found_by(manager: Any, text: str) -> list[dict[str, str]]:
    """What a manager's pattern finds; JavaScript writes named groups with one letter less."""
    (pattern,) = manager["matchStrings"]
    return [match.groupdict() for match in re.finditer(pattern.replace("(?<", "(?P<"), text)]


def test_renovate_finds_what_is_written(managers: list[Any], repository_root: Path) -> None:
    """Broken: Renovate never proposes a newer uv, base, digest or builder."""
    uv, base, pinned, cli = managers
    assert found_by(uv, EXAMPLE) == [{"currentValue": "0.13.8"}]
    assert found_by(base, EXAMPLE) == []
    fixed = EXAMPLE.replace("python:{python}-alpine", "acme/python:3.13.1")
    assert found_by(base, fixed) == [{"depName": "docker.io/library/acme/python", "currentValue": "3.13.1"}]
    matrix = parse_matrix(EXAMPLE, source="matrix.toml")
    images = [
        JobImage(cell=cell, tag=REPOSITORY.with_tag(matrix.moving_tags(cell)[0]), digest=DIGEST)
        for cell in matrix.cells
    ]  # fmt: skip
    written = jobs_yaml(images, matrix.cells[0].name, pin=True)
    assert found_by(pinned, written) == [
        {"currentValue": cell.name, "depName": str(REPOSITORY), "currentDigest": str(DIGEST)} for cell in matrix.cells
    ]
    pipeline = re.findall(r"```yaml\n(include:.*?)```", (repository_root / "README.md").read_text("utf-8"), re.DOTALL)
    assert found_by(cli, pipeline[0]) == [{"packageName": "acme/builder", "currentValue": "1.0.0"}]


def test_hook_checks_without_a_network(repository_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: the pre-commit hook asks a registry, or passes a matrix that the lock does not cover."""
    (hook,) = yaml.safe_load((repository_root / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    program, *arguments = hook["entry"].split()
    assert program == "builder"
    assert re.search(hook["files"], "sub/uv.lock")
    assert re.search(hook["files"], "matrix.toml")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "matrix.toml").write_text(SMALL)
    locks.write(tmp_path, locks.pure("one"))
    fine = builder(*arguments)
    assert (fine.exit_code, fine.stdout, fine.stderr) == (0, "", "")
    locks.write(tmp_path, locks.package("one", "1.0", "cp39-cp39-macosx_11_0_arm64"))
    bad = builder(*arguments)
    assert (bad.exit_code, bad.stdout) == (2, "")
    assert "does not cover the cell 3.12-slim: no wheel found" in bad.stderr
    assert builder(*arguments, "--json").exit_code == 2


def test_schema_has_an_address() -> None:
    """Broken: an editor's catalogue rejects the schema, because it does not say where it is."""
    assert json.loads(builder("schema").stdout)["$id"] == "urn:prebuilt:matrix"
    address = "https://acme.example.com/matrix.schema.json"
    assert json.loads(builder("schema", "--id", address).stdout)["$id"] == address


def test_action_takes_the_components_inputs(repository_root: Path) -> None:
    """Broken: a text from outside is pasted into a script of the action, or an input of the component is missing."""
    action = yaml.safe_load((repository_root / "action.yml").read_text(encoding="utf-8"))
    assert {"matrix", "lock", "options", "prune"} <= set(action["inputs"])
    for step in action["runs"]["steps"]:
        assert "${{" not in step["run"]
    json.loads((repository_root / "examples/devcontainer/devcontainer.json").read_text(encoding="utf-8"))
