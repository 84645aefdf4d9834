"""The Pythons that the unit tests run on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tomli
import yaml
from packaging.specifiers import SpecifierSet

from builder.matrix.facts import NEWEST_PYTHON, OLDEST_PYTHON


@pytest.fixture(scope="module")
def supported(repository_root: Path) -> list[str]:
    """The known Pythons that the package says it runs on."""
    table = tomli.loads((repository_root / "pyproject.toml").read_text(encoding="utf-8"))
    requires = SpecifierSet(table["project"]["requires-python"])
    return [
        python for python in (f"3.{minor}" for minor in range(OLDEST_PYTHON, NEWEST_PYTHON + 1)) if python in requires
    ]


def test_pipeline_has_all(repository_root: Path, supported: list[str]) -> None:
    """Broken: the pipeline tests on fewer Pythons than people may install builder on."""
    jobs = yaml.safe_load((repository_root / ".gitlab-ci.yml").read_text(encoding="utf-8"))
    matrices = [jobs[name]["parallel"]["matrix"] for name in ("unit", "unit-others")]
    found = {python for matrix in matrices for row in matrix for python in row["PYTHON"]}
    assert sorted(found) == sorted(supported)


def test_script_has_all(repository_root: Path, supported: list[str]) -> None:
    """Broken: `make test-unit` leaves out a Python that builder runs on."""
    script = (repository_root / ".ci" / "test-unit").read_text(encoding="utf-8")
    (loop,) = re.findall(r"^for python in (.*); do$", script, re.MULTILINE)
    assert loop.split() == supported
