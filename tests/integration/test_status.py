"""`prebuilt-status`, the script in each image that reports how far a job's lock has changed since the build."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from uv import find_uv_bin

from tests.integration.conftest import Builder, Built, docker, images_of, in_job

pytestmark = pytest.mark.integration

OFFLINE = ("--network", "none")
MATRIX = """\
python = ["3.13"]
base = ["alpine"]

[bases.alpine]
image = "docker.io/library/python:{python}-alpine"
family = "alpine"
"""
CELLS = ("3.11-bookworm-slim", "3.13-alpine")  # coreutils and busybox


def drifted(built: Built, folder: Path) -> Path:
    """The example with another version of six in its lock, and no boto3."""
    project = folder / "webshop"
    shutil.copytree(built.shop.folder, project)
    pyproject = project / "pyproject.toml"
    kept = [line for line in pyproject.read_text().splitlines() if '"boto3' not in line]
    pyproject.write_text("\n".join(kept).replace("dependencies = [", 'dependencies = [\n    "six==1.16.0",', 1))
    subprocess.run([find_uv_bin(), "lock", "--quiet"], cwd=project, check=True)
    return project


@pytest.mark.parametrize("cell", CELLS)
def test_same_lock_is_the_same(built: Built, cell: str) -> None:
    """Broken: a job on its own image is told of a difference, or another user gets no answer."""
    options = [*OFFLINE, "--user", "12345:12345"]
    script = "uv sync --frozen --quiet; prebuilt-status --fail"  # with the project itself in the environment
    output = in_job(built.image(cell), script, checkout=built.shop.folder, options=options)
    first, second, third = output.splitlines()
    assert first.startswith(f"image      {cell}, less than a day old (built 20")
    assert second.startswith("made from  uv.lock: 61 packages, selection ")
    assert third == "checkout   uv.lock: the same packages"


@pytest.mark.parametrize("cell", CELLS)
def test_drift_is_counted_fetched_and_gone(built: Built, tmp_path: Path, cell: str) -> None:
    """Broken: a changed lock goes unnoticed or does not fail --fail, or a job downloads more than the changes."""
    script = (
        "prebuilt-status --fail && exit 9 || echo status $?\n"
        "uv sync --frozen --no-install-project 2>&1 | grep -E '^(Prepared|Installed|Uninstalled| [-+~])'\n"
        "if python -c 'import boto3' 2>/dev/null; then echo still there; else echo gone; fi\n"
        "prebuilt-status --fail"
    )
    trust = ["-v", f"{built.shop.ca}:/ca.pem:ro", "-e", "SSL_CERT_FILE=/ca.pem"]
    output = in_job(built.image(cell), script, checkout=drifted(built, tmp_path), options=trust)
    before, _, after = output.partition("status 1\n")
    differing = {line.split("==")[0][3:] for line in before.splitlines() if line.startswith((" + ", " - "))}
    assert differing >= {"boto3", "botocore", "six"}
    assert f"checkout   uv.lock: {len(differing)} packages differ" in before
    assert " + six==1.16.0" in before
    assert " - boto3==" in before
    assert "Prepared 1 package" in after
    assert "Installed 1 package" in after
    assert "gone" in after.splitlines()
    assert after.splitlines()[-1] == "checkout   uv.lock: the same packages"


def test_requirements_file_is_compared_too(built: Built, builder: Builder, tmp_path: Path) -> None:
    """Broken: with a requirements file, or with pip in it, an image is wrong, or the script compares it wrongly."""
    lock = tmp_path / "requirements.txt"

    def compiled(*requirements: str) -> None:
        """Write and lock the requirements."""
        (tmp_path / "requirements.in").write_text("\n".join(requirements))
        argv = [find_uv_bin(), "pip", "compile", "-q", "--universal", "--generate-hashes", "--no-emit-index-url"]
        subprocess.run([*argv, "requirements.in", "-o", str(lock)], cwd=tmp_path, check=True, capture_output=True)

    compiled("idna==3.10", "pip", "colorama; sys_platform == 'win32'")  # with pip, none is installed before
    (tmp_path / "matrix.toml").write_text(MATRIX)
    env = {**built.shop.env, "CI_REGISTRY_IMAGE": f"status.example/{tmp_path.name.replace('_', '-')}"}
    done = builder("build", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    image = done.stdout.strip()
    try:
        script = "python -m venv --without-pip /tmp/own; . /tmp/own/bin/activate; prebuilt-status --fail"
        same = in_job(image, script, checkout=tmp_path, options=OFFLINE)
        assert same.splitlines()[-1] == "checkout   requirements.txt: the same packages"
        compiled("idna==3.9", "pip")
        trust = ["-v", f"{built.shop.ca}:/ca.pem:ro", "-e", "SSL_CERT_FILE=/ca.pem"]
        for name in ("UV_DEFAULT_INDEX", "PIP_INDEX_URL"):
            trust += ["-e", name] if name in os.environ else []
        moved = in_job(image, "prebuilt-status --fail || echo status $?", checkout=tmp_path, options=trust)
        assert "checkout   requirements.txt: 1 package differs\n - idna==3.10\n + idna==3.9\n" in moved
        assert moved.splitlines()[-1] == "status 1"
    finally:
        for tag in images_of(image.rpartition(":")[0]):
            docker("image", "rm", "--force", f"{image.rpartition(':')[0]}:{tag}")


def test_old_image_fails_a_job_that_asks(built: Built) -> None:
    """Broken: an image that no schedule renews stays in use."""
    script = (
        "touch -d @$(($(date +%s) - 10 * 86400)) /opt/uv/pylock.toml\n"
        "prebuilt-status --max-age 30 && echo young enough\n"
        "prebuilt-status --max-age 7 || echo too old $?"
    )
    output = in_job(built.image("3.13-alpine"), script, checkout=built.shop.folder, options=OFFLINE).splitlines()
    assert "10 days old" in output[0]
    assert output[3] == "young enough"
    assert output[-1] == "too old 1"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("cd /; prebuilt-status --fail", "no uv.lock to compare with in ."),
        ("echo '[[package]]' > uv.lock; prebuilt-status --fail", "uv.lock cannot be compared with the image"),
        ("prebuilt-status --max-age soon", "--max-age takes a number of days"),
        ("prebuilt-status --max-age", "--max-age takes a number of days"),
        ("prebuilt-status --fial", "no option --fial; see prebuilt-status --help"),
        ("prebuilt-status a b", "one folder at a time, not a and b"),
    ],
)
def test_what_cannot_be_told_is_no_success(built: Built, command: str, says: str) -> None:
    """Broken: a mistyped option, or a missing or unreadable lock, counts as an up-to-date image."""
    script = f"({command}) 2>&1 || echo exit $?"
    output = in_job(built.image("3.13-alpine"), script, checkout=built.shop.folder, options=OFFLINE).splitlines()
    assert output[-2] == f"prebuilt-status: {says}"
    assert output[-1] == "exit 2"
