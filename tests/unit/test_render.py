"""Rendered contexts are those in tests/golden; `pytest --update-golden` writes them again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import builder
from builder.image.render import RenderedImage, render
from builder.lock.model import Tool
from builder.oci.reference import Digest
from tests.layers import chosen
from tests.locks import FILES, fake_hash, package, pure, sdist
from tests.plans import plan_of

DEBIAN = """\
python = ["3.12"]
base = ["bookworm-slim"]
uv = "0.13.8"

[aliases]
latest = "3.12-bookworm-slim"

[bases.bookworm-slim]
image = "docker.io/library/python:{python}-slim-bookworm"
family = "debian"
packages = ["git", "libpq-dev=15.6-0+deb12u1"]
"""

TOOLCHAIN = """\
python = ["3.12"]
base = ["bookworm-slim"]
uv = "0.13.8"

[bases.bookworm-slim]
image = "docker.io/library/python:{python}-slim-bookworm"
family = "debian"
packages = ["libpq5"]
build-packages = ["gcc", "libc6-dev", "libpq-dev"]
"""

ALPINE = """\
python = ["3.13"]
base = ["alpine"]
uv = "0.13.8"
link-mode = "symlink"

[bases.alpine]
image = "docker.io/library/python:{python}-alpine"
family = "alpine"
"""

RHEL = """\
python = ["3.12"]
base = ["ubi"]
uv = "0.13.8"
refresh = "monthly"

[install]
cache-groups = ["dev"]

[bases.ubi]
image = "registry.access.redhat.com/ubi9/python-312:1"
packages = ["git"]
user = "1001"
"""

WOLFI = """\
python = ["3.13"]
base = ["wolfi"]
uv = "0.13.8"

[profiles.lint]

[bases.wolfi]
image = "cgr.dev/chainguard/wolfi-base:latest"
packages = ["git"]
"""

FROM_UV = """\
python = ["3.13t"]
base = ["jammy"]
uv = "0.13.8"

[bases.jammy]
image = "docker.io/library/ubuntu:22.04"
packages = ["git"]
python-source = "uv"
"""

# What `uv python list` says of it.
FREE_THREADED = """\
[{"key": "cpython-3.13.18+freethreaded-linux-x86_64-gnu", "version": "3.13.18", "variant": "freethreaded",
  "implementation": "cpython", "os": "linux", "arch": "x86_64", "libc": "gnu",
  "url": "https://pythons.invalid/20261110/cpython-3.13.18%2B20261110-x86_64-linux-gnu-freethreaded.tar.gz"}]
"""

PROJECT = """\
[project]
name = "app"
version = "1.0"

[build-system]
requires = ["hatchling>=1.27", "hatch-vcs"]
build-backend = "hatchling.build"

[tool.uv]
build-constraint-dependencies = ["hatchling==1.27.0"]

[[tool.uv.index]]
name = "acme"
url = "https://jane:hunter2@index.invalid/simple"
default = true
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A matrix, a lock, and the platform to render for."""

    matrix: str
    packages: list[dict[str, Any]]
    project: str = ""
    platform: str = "linux/amd64"
    files: dict[str, str] = field(default_factory=dict)
    listings: dict[str, str] = field(default_factory=dict)
    tools: tuple[Tool, ...] = ()


CASES = {
    "debian-with-packages": Case(
        matrix=DEBIAN,
        packages=[
            package("fast", "2.1", "cp312-cp312-manylinux_2_17_x86_64", "cp312-cp312-musllinux_1_2_x86_64"),
            pure("small", "0.9.post1"),
            pure("windows-only", "1.0", marker="sys_platform == 'win32'"),
        ],
    ),
    "alpine-without-packages": Case(
        matrix=ALPINE,
        packages=[
            {"name": "from-source", "version": "3.0", "index": "https://index.invalid/simple",
             "sdist": sdist("from-source", "3.0")},
            pure("small", "0.9.post1"),
        ],
        platform="linux/arm64",
    ),
    "with-build-systems": Case(
        matrix=DEBIAN.replace('packages = ["git", "libpq-dev=15.6-0+deb12u1"]\n', ""),
        packages=[
            {"name": "app", "directory": {"path": "."}},
            {"name": "old", "directory": {"path": "old"}},
            {"name": "forked", "vcs": {"type": "git", "url": "https://git.invalid/forked.git", "commit-id": "ab" * 20}},
            {"name": "zipped", "version": "1.0", "archive": {
                "url": f"{FILES}/zipped-main.zip", "hashes": {"sha256": fake_hash("zipped")}}},
            pure("small", "0.9.post1"),
        ],
        project=PROJECT,
    ),
    "rhel-with-user": Case(
        matrix=f'ca = "company.pem"\n{RHEL}',
        files={"company.pem": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"},
        packages=[
            package("fast", "2.1", "cp312-cp312-manylinux_2_34_x86_64", "cp312-cp312-manylinux_2_35_x86_64"),
            pure("only-cached", "1.0", marker="'dev' in dependency_groups"),
        ],
    ),
    "wolfi": Case(matrix=WOLFI, packages=[pure("small", "0.9.post1")]),
    "with-toolchain-and-ca": Case(
        matrix=f'ca = "company.pem"\n{TOOLCHAIN}',
        files={"company.pem": "our CA\n-----BEGIN CERTIFICATE-----\r\nMIIB\r\n-----END CERTIFICATE-----\r\n"},
        packages=[
            {"name": "from-source", "version": "3.0", "sdist": sdist("from-source", "3.0")},
            pure("small", "1.0"),
        ],
    ),
    "python-from-uv": Case(
        matrix=FROM_UV,
        packages=[package("fast", "2.1", "cp313-cp313-manylinux_2_17_x86_64", "cp313-cp313t-manylinux_2_17_x86_64")],
        listings={"3.13t": FREE_THREADED},
    ),
    "with-tools": Case(
        matrix=ALPINE,
        packages=[pure("small", "1.0")],
        tools=(
            Tool(requirement="ruff", packages=(chosen("ruff", "0.14.5"),)),
            Tool(requirement="pre-commit[all]==4.*", packages=(chosen("pre-commit", "4.3.0"), chosen("cfgv", "3.5.0"))),
        ),
    ),
    "empty-selection": Case(matrix=ALPINE, packages=[]),
}  # fmt: skip


@pytest.fixture
def rendered(tmp_path: Path, base_digest: Digest, uv_digest: Digest) -> Callable[[str], RenderedImage]:
    """Render a case by its name."""

    def make(name: str) -> RenderedImage:
        case = CASES[name]
        for path, text in case.files.items():
            (tmp_path / path).write_text(text, encoding="utf-8")
        if case.project:
            (tmp_path / "pyproject.toml").write_text(case.project, encoding="utf-8")
        plan = plan_of(
            tmp_path, case.matrix, *case.packages,
            base_digest=base_digest, uv_digest=uv_digest, platform=case.platform, listings=case.listings,
        )  # fmt: skip
        return render(replace(plan, selection=replace(plan.selection, tools=case.tools)))

    return make


def _is_kept(name: str) -> bool:
    # requires.py is builder's own file, word for word; a copy would go through the linters a second time.
    return not name.endswith(".py")


@pytest.mark.parametrize("name", CASES)
def test_context_is_the_golden_one(
    name: str, rendered: Callable[[str], RenderedImage], repository_root: Path, update_golden: bool
) -> None:
    """Broken: a change of what is built, and so of every image, goes unnoticed."""
    folder = repository_root / "tests" / "golden" / name
    files = {path: content for path, content in rendered(name).files if _is_kept(path)}
    if update_golden:
        shutil.rmtree(folder, ignore_errors=True)
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
    golden = {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert {path: content.decode() for path, content in files.items()} == golden


def test_every_golden_folder_has_a_case(repository_root: Path) -> None:
    """Broken: a golden folder is left over that no test renders."""
    assert {path.name for path in (repository_root / "tests" / "golden").iterdir()} == set(CASES)


def test_probe_of_build_systems_is_builders_own(rendered: Callable[[str], RenderedImage]) -> None:
    """Broken: the image build runs another script than dockerfiles/requires.py to ask backends."""
    probe = Path(builder.__file__).parent.parent / "dockerfiles" / "requires.py"
    assert dict(rendered("with-build-systems").files)["requires.py"] == probe.read_bytes()


@pytest.mark.parametrize("name", CASES)
def test_context_has_nothing_of_the_machine(
    name: str, rendered: Callable[[str], RenderedImage], tmp_path: Path
) -> None:
    """Broken: the same inputs have another key on another machine, or a context contains a password."""
    whole = b"".join(content for _, content in rendered(name).files)
    for stranger in (str(tmp_path), "hunter2", "jane"):
        assert stranger.encode() not in whole


@pytest.mark.parametrize("name", CASES)
def test_same_plan_gives_the_same_bytes(name: str, rendered: Callable[[str], RenderedImage]) -> None:
    """Broken: images are rebuilt although the lock did not change."""
    assert rendered(name) == rendered(name)


def test_written_context_is_the_rendered_one(rendered: Callable[[str], RenderedImage], tmp_path: Path) -> None:
    """Broken: `builder render` writes something other than what is built."""
    image, folder = rendered("with-build-systems"), tmp_path / "out" / "cell"
    image.replace(folder)
    (folder / "left-over").touch()
    image.replace(folder)
    written = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert written == dict(image.files)
    assert [path.name for path in folder.parent.iterdir()] == ["cell"]


def test_toolchain_without_sources(tmp_path: Path, base_digest: Digest, uv_digest: Digest) -> None:
    """Broken: images are built again, or with another stage, for build packages that nothing is built with."""
    texts = (TOOLCHAIN, TOOLCHAIN.replace('build-packages = ["gcc", "libc6-dev", "libpq-dev"]\n', ""))
    plans = [plan_of(tmp_path, text, pure("one"), base_digest=base_digest, uv_digest=uv_digest) for text in texts]
    assert render(plans[0]).key == render(plans[1]).key


def test_status_of_a_script(tmp_path: Path, base_digest: Digest, uv_digest: Digest) -> None:
    """Broken: prebuilt-status compares the lock of a script as a requirements file, which it is not."""
    plan = plan_of(tmp_path, DEBIAN, pure("one"), base_digest=base_digest, uv_digest=uv_digest)
    plan = replace(plan, selection=replace(plan.selection, lock_kind="script", lock_name="tool.py.lock"))
    status = dict(render(plan).files)["prebuilt-status"].decode()
    assert "lock=tool.py.lock\n" in status
    assert 'uv sync --frozen --dry-run --color never --active --script "${lock%.lock}"' in status
