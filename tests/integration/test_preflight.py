"""`builder plan` on locks that not every cell can install, against the registry."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from tests import locks
from tests.integration.conftest import Builder
from tests.locks import package, pure

MATRIX = """\
python = ["3.13"]
base = ["bookworm-slim", "alpine"]

[bases.bookworm-slim]
image = "docker.io/library/python:{python}-slim-bookworm"
family = "debian"

[bases.alpine]
image = "docker.io/library/python:{python}-alpine"
family = "alpine"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that cannot be installed on Alpine."""
    (tmp_path / "matrix.toml").write_text(MATRIX, encoding="utf-8")
    locks.write(tmp_path, pure("one"), package("torch", "2.0", "cp313-cp313-manylinux_2_28_x86_64"))
    return tmp_path


def test_good_cells_are_planned(project: Path, builder: Builder) -> None:
    """Broken: one cell that cannot be built keeps the others from being planned, or the exit code hides it."""
    done = builder("plan", cwd=project)
    assert done.returncode == 2
    assert "3.13-bookworm-slim\n  packages   2: 2 wheels\n" in done.stdout
    assert "torch 2.0 wheel              impossible" in done.stdout
    assert "does not cover the cell 3.13-alpine: no wheel found for package 'torch' 2.0" in done.stderr


def test_good_cells_are_planned_as_json(project: Path, builder: Builder, repository_root: Path) -> None:
    """Broken: scripts do not learn which cells can be built, or the output differs from its schema."""
    done = builder("plan", "--json", cwd=project)
    table = json.loads(done.stdout)
    jsonschema.validate(table, json.loads((repository_root / "docs" / "output.schema.json").read_text("utf-8")))
    assert done.returncode == 2
    assert [cell["name"] for cell in table["cells"]] == ["3.13-bookworm-slim"]
    assert [cell["can_be_built"] for cell in table["preflight"]["cells"]] == [True, False]


def test_build_refuses_all(project: Path, builder: Builder) -> None:
    """Broken: a matrix is built in part, and nobody notices."""
    done = builder("build", cwd=project)
    assert (done.returncode, done.stdout) == (2, "")
    assert "does not cover the cell 3.13-alpine" in done.stderr
