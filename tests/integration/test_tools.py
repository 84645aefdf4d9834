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
tools = ["pycodestyle==2.*"]

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
    "uvx": "echo $(cd / && pycodestyle --version; uvx pycodestyle --version; uv tool run pycodestyle --version)",
    "status": "uv sync --frozen --quiet && prebuilt-status --fail",
}
SAID = {
    "pip": "/opt/uv/venv", "uv pip": "/opt/uv/venv", "uv build": "shop-1.0-py3-none-any.whl",
    "build": "shop-1.0-py3-none-any.whl", "tox": "tox /builds/project/.tox/test",
    "nox": "nox /builds/project/.nox/test", "status": "uv.lock: the same packages",
}  # fmt: skip
# What breaks the tools of an image, and what the check says of it.
DAMAGES = {
    "RUN rm -r /opt/uv/tools/pycodestyle/lib": "pycodestyle",
    "RUN rm /opt/uv/bin/pycodestyle": "pycodestyle has no program in /opt/uv/bin",
    "RUN chmod 700 /opt/uv/tools": "as uid 12345: ",
    "RUN rm /opt/uv/tools/pycodestyle/uv-receipt.toml": "uv tool list says nothing, not pycodestyle v2.",
    "ENV UV_TOOL_DIR=/tmp/tools": "uv tool list says nothing, not pycodestyle v2.",
}


def test_tools_work_without_a_network(shop: Shop, builder: Builder, tmp_path: Path, scratch_repository: str) -> None:
    """Broken: pip, build, tox, nox or a tool of the matrix ask an index for what the image has, or fail.

    Or no check notices a tool that does not work.
    """
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
    (tool,) = cell["tools"]
    version = tool["packages"][0]["version"]
    assert (tool["name"], tool["requirement"]) == ("pycodestyle", "pycodestyle==2.*")
    assert parts["uvx"].split() == [version] * 3
    for number, (line, said) in enumerate(DAMAGES.items()):
        image = f"{scratch_repository}:damaged-{number}"
        (tmp_path / "Dockerfile").write_text(f"FROM {cell['tags'][1]}\n{line}\n")
        subprocess.run(["docker", "build", "--quiet", "--tag", image, str(tmp_path)], check=True, capture_output=True)
        done = builder("verify", image, "--check", "tools", "--json", cwd=tmp_path)
        (check,) = json.loads(done.stdout)["checks"]
        assert (check["verdict"], said in check["evidence"]) == ("failed", True), (line, check)
