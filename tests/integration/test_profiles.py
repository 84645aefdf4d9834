"""Images of several profiles: of groups that conflict, of another lock, and with a group that is only cached."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trustme
from uv import find_uv_bin

from tests.integration.conftest import Builder, docker, images_of, in_job

pytestmark = pytest.mark.integration

PROJECT = """\
[project]
name = "{name}"
version = "1"
requires-python = ">=3.11"
dependencies = [{dependencies}]

[tool.uv]
package = false
"""
GROUPS = """\
conflicts = [[{ group = "old" }, { group = "new" }]]

[dependency-groups]
old = ["idna==3.9"]
new = ["idna==3.10"]
docs = ["six==1.16.0"]
"""
MATRIX = """\
ca = "company.pem"
python = ["3.13"]
base = ["slim", "alpine"]
exclude = [
    { base = "slim", profile = "api" }, { base = "alpine", profile = "old" }, { base = "alpine", profile = "new" },
]

[profiles.old]
groups = ["old"]
cache-groups = ["docs"]

[profiles.new]
groups = ["new"]

[profiles.api]
lock = "services/api/uv.lock"

[bases.slim]
image = "docker.io/library/python:{python}-slim-bookworm"
user = "ci"

[bases.alpine]
image = "docker.io/library/python:{python}-alpine"
user = "1234"
"""
OFFLINE = ("--network", "none")
Images = tuple[Path, Mapping[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def images(builder: Builder, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The project's folder, and the cells that were built for it, by profile."""
    folder = tmp_path_factory.mktemp("profiles")
    write(folder, "profiled", "", GROUPS)
    write(folder / "services" / "api", "api", '"iniconfig==2.0.0"', "")
    (folder / "matrix.toml").write_text(MATRIX, encoding="utf-8")
    (folder / "company.pem").write_bytes(trustme.CA(organization_name="Acme").cert_pem.bytes())
    done = builder("build", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    yield folder, {cell["profile"]: cell for cell in json.loads(done.stdout)["cells"]}
    for tag in images_of("profiled-ci"):
        docker("image", "rm", "--force", f"profiled-ci:{tag}")


def write(folder: Path, name: str, dependencies: str, more: str) -> None:
    """Write a project and lock it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(PROJECT.format(name=name, dependencies=dependencies) + more)
    subprocess.run([find_uv_bin(), "lock", "--quiet"], cwd=folder, check=True)


def versions(cell: Mapping[str, Any], key: str = "packages") -> dict[str, str]:
    """The packages of a cell with their versions."""
    return {package["name"]: package["version"] for package in cell.get(key, ())}


def test_conflicting_groups_and_two_locks(images: Images) -> None:
    """Broken: of groups that conflict, or of several locks, only one can be baked, or an image is not verified."""
    _, cells = images
    assert {profile: versions(cell) for profile, cell in cells.items()} == {
        "old": {"idna": "3.9"},
        "new": {"idna": "3.10"},
        "api": {"iniconfig": "2.0.0"},
    }
    assert versions(cells["old"], "cached_packages") == {"six": "1.16.0"}
    assert {profile: cell["outcome"] for profile, cell in cells.items()} == dict.fromkeys(cells, "verified")
    assert cells["new"]["tags"][1].endswith(":3.13-slim-new")


def test_group_that_is_only_cached(images: Images) -> None:
    """Broken: the job that needs the group has no network and fails, or all jobs have its packages."""
    folder, cells = images
    script = (
        "python -c 'import six' 2>/dev/null && exit 1\n"
        "uv sync --frozen --offline --quiet --group old --group docs\n"
        "python -c 'import six, idna; print(six.__version__)'"
    )
    assert in_job(cells["old"]["tags"][1], script, checkout=folder, options=OFFLINE) == "1.16.0"


def test_jobs_trust_the_company(images: Images) -> None:
    """Broken: on Debian or on Alpine, jobs do not trust the CA that the matrix names, or no other any more."""
    _, cells = images
    code = "import ssl; print(*('Acme' in str(each) for each in ssl.create_default_context().get_ca_certs()))"
    for profile in ("old", "api"):
        trusted = in_job(cells[profile]["tags"][1], f'python -c "{code}"', options=OFFLINE).split()
        assert trusted.count("True") == 1
        assert len(trusted) > 100


def test_status_of_each_profile(images: Images) -> None:
    """Broken: prebuilt-status compares an image with another profile's packages, or another service's lock."""
    folder, cells = images
    for profile in cells:
        output = in_job(cells[profile]["tags"][1], "prebuilt-status --fail", checkout=folder, options=OFFLINE)
        assert output.splitlines()[-1] == "checkout   uv.lock: the same packages"


def test_verification_of_a_profile(images: Images, builder: Builder) -> None:
    """Broken: `builder verify` syncs a profile's image with what other images have, and fails."""
    folder, cells = images
    for profile in ("old", "api"):
        checks = ("--check", "sync-frozen", "--check", "second-environment", "--json")
        done = builder("verify", cells[profile]["tags"][1], *checks, cwd=folder)
        assert done.returncode == 0, done.stderr + done.stdout
        assert ("--group docs too" in done.stdout) is (profile == "old")


def test_user_of_the_images(images: Images) -> None:
    """Broken: the image runs as root, its user has no home or may not install, or the checks run as somebody else."""
    folder, cells = images
    script = "id -un; uv sync --frozen --offline --quiet --group new --reinstall\ncd; pwd; touch here"
    output = in_job(cells["new"]["tags"][1], script, checkout=folder, options=OFFLINE)
    assert output.splitlines() == ["ci", "/home/ci"]
    (any_user,) = [check for check in cells["new"]["checks"] if check["name"] == "any-user"]
    assert any_user["evidence"] == "all checks ran as uid 1000"
    assert in_job(cells["api"]["tags"][1], "id -u; echo $HOME; touch ~/here", options=OFFLINE) == "1234\n/home/user1234"


def test_one_profile_is_chosen(images: Images, builder: Builder) -> None:
    """Broken: --only does not choose a profile, or builds again what another run has built."""
    folder, cells = images
    done = builder("build", "--only", "profile=new", "--json", cwd=folder)
    (cell,) = json.loads(done.stdout)["cells"]
    assert (cell["key"], cell["outcome"]) == (cells["new"]["key"], "up-to-date")
