"""Tools that make environments or build packages, in a job without a network, on an image whose lock has them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from uv import find_uv_bin

from tests.integration.conftest import Builder, Shop, in_job

pytestmark = pytest.mark.integration

PYPROJECT = """\
[project]
name = "shop"
version = "1.0"
requires-python = ">=3.11"
dependencies = ["six"]

[dependency-groups]
dev = ["build", "editables", "hatchling", "nox", "tox", "tox-uv-bare"]

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[tool.hatch.build.targets.wheel]
packages = ["shop"]
"""
TOX = """\
[tox]
env_list = test

[testenv]
runner = uv-venv-lock-runner
commands = python -c "import shop, six, sys; print('tox', sys.prefix)"
"""
NOX = """\
import nox

@nox.session
def test(session):
    session.run_install("uv", "sync", "--frozen", "--active", "--no-default-groups")
    session.run("python", "-c", "import shop, six, sys; print('nox', sys.prefix)")
"""
MATRIX = """\
repository = "{repository}"
python = ["3.13"]
base = ["slim"]

[bases.slim]
image = "docker.io/library/python:{{python}}-slim-bookworm"
family = "debian"
"""
# Each ends with a line that says where it worked.
COMMANDS = {
    "pip": "pip install --quiet --no-build-isolation -e . && python -c 'import shop, sys; print(sys.prefix)'",
    "uv pip": "uv pip install --quiet --no-deps -e . && python -c 'import shop, sys; print(sys.prefix)'",
    "uv build": "uv build --quiet --wheel --out-dir /tmp/one && ls /tmp/one",
    "build": "python -m build --installer uv --wheel --outdir /tmp/two . >/dev/null && ls /tmp/two",
    "tox": "tox run -q",
    "nox": "nox -db uv",
    "status": "uv sync --frozen --quiet && prebuilt-status --fail",
}
SAID = {
    "pip": "/opt/uv/venv", "uv pip": "/opt/uv/venv", "uv build": "shop-1.0-py3-none-any.whl",
    "build": "shop-1.0-py3-none-any.whl", "tox": "tox /builds/project/.tox/test",
    "nox": "nox /builds/project/.nox/test", "status": "uv.lock: the same packages",
}  # fmt: skip


def test_tools_work_without_a_network(shop: Shop, builder: Builder, tmp_path: Path, scratch_repository: str) -> None:
    """Broken: pip, build, tox or nox ask an index for what the image has, or change the baked environment."""
    for name, text in {
        "pyproject.toml": PYPROJECT, "tox.ini": TOX, "noxfile.py": NOX, "shop/__init__.py": "",
        "matrix.toml": MATRIX.format(repository=scratch_repository),
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run([find_uv_bin(), "lock", "--quiet"], cwd=tmp_path, check=True)
    done = builder("build", "--json", cwd=tmp_path, env=shop.env)
    assert done.returncode == 0, done.stderr
    (cell,) = json.loads(done.stdout)["cells"]
    script = "\n".join(f"echo '### {name}'; {{ {command}; }} 2>&1 || echo failed" for name, command in COMMANDS.items())
    output = in_job(cell["tags"][1], script, checkout=tmp_path, options=("--network", "none"))
    parts = dict(part.strip().split("\n", 1) for part in output.split("### ")[1:])
    assert [(name, parts[name]) for name, said in SAID.items() if said not in parts[name]] == []
