"""Projects with each of the usual build backends: the image contains what it needs, although no lock names it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from uv import find_uv_bin

from tests.integration.conftest import Builder, Shop

pytestmark = pytest.mark.integration

BACKENDS = {
    "with-setuptools": ("setuptools.build_meta", ["setuptools"]),
    "with-old-setuptools": ("setuptools.build_meta", ["setuptools<70"]),  # which asks for wheel when it is asked
    "with-hatchling": ("hatchling.build", ["hatchling"]),
    "with-flit": ("flit_core.buildapi", ["flit_core"]),
    "with-poetry": ("poetry.core.masonry.api", ["poetry-core"]),
    "with-pdm": ("pdm.backend", ["pdm-backend"]),
    "with-uv": ("uv_build", ["uv_build"]),
}
MATRIX = """\
python = ["3.13"]
base = ["slim"]

[bases.slim]
image = "docker.io/library/python:{python}-slim-bookworm"
family = "debian"
"""


def write(folder: Path, name: str, backend: str, requires: list[str], more: str = "") -> None:
    """A package with one module, and its build system."""
    module = name.replace("-", "_")
    (folder / "src" / module).mkdir(parents=True)
    (folder / "src" / module / "__init__.py").write_text('"""A module."""\n__version__ = "1.0"\n')
    table = f'[project]\nname = "{name}"\nversion = "1.0"\ndescription = "One"\nrequires-python = ">=3.11"\n'
    system = f'[build-system]\nrequires = {json.dumps(requires)}\nbuild-backend = "{backend}"\n'
    (folder / "pyproject.toml").write_text(f"{table}{more}\n{system}")


def test_every_backend_builds_offline(shop: Shop, builder: Builder, tmp_path: Path, scratch_repository: str) -> None:
    """Broken: a project cannot be built, or its job's `uv sync` needs the network for its build backend."""
    for name, (backend, requires) in BACKENDS.items():
        write(tmp_path / name, name, backend, requires)
    needed = ", ".join(f'"{name}"' for name in BACKENDS)
    sources = "".join(f"{name} = {{ workspace = true }}\n" for name in BACKENDS)
    write(
        tmp_path, "all-of-them", "hatchling.build", ["hatchling"],
        f"dependencies = [{needed}]\n\n[tool.uv.workspace]\nmembers = [{needed}]\n\n[tool.uv.sources]\n{sources}",
    )  # fmt: skip
    subprocess.run([find_uv_bin(), "lock", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / "matrix.toml").write_text(f'repository = "{scratch_repository}"\n{MATRIX}')
    done = builder("build", "--json", cwd=tmp_path, env=shop.env)
    assert done.returncode == 0, done.stderr
    (cell,) = json.loads(done.stdout)["cells"]
    checks = {check["name"]: check["verdict"] for check in cell["checks"]}
    assert checks["project-offline"] == "passed"
    assert "failed" not in checks.values()
