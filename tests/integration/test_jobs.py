"""Jobs on the images, beyond what `builder verify` checks."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from uv import find_uv_bin

from tests.integration.conftest import Built, in_job

pytestmark = pytest.mark.integration

OFFLINE = ("--network", "none")


@pytest.mark.parametrize("cell", ["3.11-bookworm-slim", "3.13-alpine"])
def test_the_projects_own_tests_pass(built: Built, cell: str) -> None:
    """Broken: the project's test job does not run on the image, without a network."""
    script = "uv sync --frozen; uv run --no-sync ruff check; uv run --no-sync mypy; uv run --no-sync pytest -q"
    output = in_job(built.image(cell), script, checkout=built.shop.folder, options=OFFLINE)
    assert " passed" in output
    assert "failed" not in output


def test_plain_pip_finds_everything_satisfied(built: Built, tmp_path: Path) -> None:
    """Broken: a job with `pip install -r` and hashes installs something, or needs a network."""
    requirements = tmp_path / "requirements.txt"
    exported = [find_uv_bin(), "export", "--frozen", "--quiet", "--no-emit-local", "--output-file", str(requirements)]
    subprocess.run(exported, cwd=built.shop.folder, check=True, capture_output=True)
    output = in_job(
        built.image("3.11-bookworm-slim"), "pip install --no-index -r requirements.txt",
        checkout=tmp_path, options=OFFLINE,
    )  # fmt: skip
    assert "Requirement already satisfied" in output
    assert "Successfully installed" not in output


def test_exact_sync_leaves_pip_alone(built: Built) -> None:
    """Broken: `uv sync`, which is exact, removes pip from jobs that call it."""
    output = in_job(
        built.image("3.13-bookworm-slim"), "uv sync --frozen; pip --version",
        checkout=built.shop.folder, options=OFFLINE,
    )  # fmt: skip
    assert "/opt/uv/venv/" in output


def test_newer_lock_replaces_code_and_bytecode(built: Built, tmp_path: Path) -> None:
    """Broken: a job with a newer lock runs the bytecode of the old one."""
    project = tmp_path / "webshop"
    shutil.copytree(built.shop.folder, project)
    pyproject = project / "pyproject.toml"
    text = pyproject.read_text()
    pyproject.write_text(text.replace("dependencies = [", 'dependencies = [\n    "six==1.16.0",', 1))
    subprocess.run([find_uv_bin(), "lock", "--quiet"], cwd=project, check=True)
    script = (
        "python -c 'import six; print(six.__version__)'\n"
        "uv sync --frozen --no-install-project\n"
        "python -c 'import six; print(six.__version__)'"
    )
    trust = ["-v", f"{built.shop.ca}:/ca.pem:ro", "-e", "SSL_CERT_FILE=/ca.pem"]
    lines = in_job(built.image("3.13-bookworm-slim"), script, checkout=project, options=trust).splitlines()
    assert lines[0] != "1.16.0"
    assert lines[-1] == "1.16.0"


def test_package_that_left_the_lock_leaves_the_environment(built: Built, tmp_path: Path) -> None:
    """Broken: a dependency that the project dropped still works on an older image."""
    project = tmp_path / "webshop"
    shutil.copytree(built.shop.folder, project)
    pyproject = project / "pyproject.toml"
    kept = [line for line in pyproject.read_text().splitlines() if '"boto3' not in line]
    pyproject.write_text("\n".join(kept))
    subprocess.run([find_uv_bin(), "lock", "--quiet"], cwd=project, check=True)
    script = (
        "python -c 'import boto3'\n"
        "uv sync --frozen --no-install-project\n"
        "if python -c 'import boto3' 2>/dev/null; then echo still there; else echo gone; fi"
    )
    output = in_job(built.image("3.13-alpine"), script, checkout=project, options=OFFLINE)
    assert output.splitlines()[-1] == "gone"


def test_no_ca_in_what_leaves_the_machine(built: Built, tmp_path: Path) -> None:
    """Broken: a company's CA for the build is in the saved image or in the log."""
    line = built.shop.canary.splitlines()[5]
    archive = tmp_path / "image.tar"
    image = built.image("3.13-alpine")
    subprocess.run(["docker", "save", "--output", str(archive), image], check=True)
    script = "set -e; cd $1; tar -xf image.tar; for f in blobs/sha256/*; do gzip -dc <$f 2>/dev/null || cat $f; done"
    everything = subprocess.run(["sh", "-c", script, "sh", str(tmp_path)], check=True, capture_output=True).stdout
    assert len(everything) > 100_000_000
    assert line not in everything
    for cell in built.cells:
        assert line not in Path(cell["log"]).read_bytes()
        evidence = {check["name"]: check["evidence"] for check in cell["checks"]}["no-secrets"]
        assert "searched" in evidence
