"""The key changes with every input of an image, and with nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder.image.render import render
from builder.oci.reference import Digest, ImageRef
from tests.locks import fake_hash, package, pure, sdist, wheel
from tests.matrices import EXAMPLE, changed
from tests.plans import plan_of

PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
"""


@pytest.fixture
def key(tmp_path: Path, base_digest: Digest, uv_digest: Digest) -> Callable[..., str]:
    """The key of the example's first cell, with some inputs changed."""

    def of(
        matrix: str = EXAMPLE, packages: list[dict[str, Any]] | None = None, pyproject: str = "", **more: Any
    ) -> str:
        (tmp_path / "pyproject.toml").write_text(pyproject, encoding="utf-8")
        arguments = {"base_digest": base_digest, "uv_digest": uv_digest, **more}
        return render(plan_of(tmp_path, matrix, *(lock() if packages is None else packages), **arguments)).key

    return of


def lock(**small: Any) -> list[dict[str, Any]]:
    """Two packages, and one for Windows only."""
    return [
        package("fast", "2.1", "cp312-cp312-manylinux_2_17_x86_64", "cp312-cp312-win_amd64"),
        {**pure("small"), **small},
        pure("windows-only", "1.0", marker="sys_platform == 'win32'"),
    ]


OTHER = Digest(algorithm="sha256", hex="0" * 64)
SAME_NAME = [{**wheel("small", "1.0"), "hashes": {"sha256": fake_hash("another")}}]


@pytest.mark.parametrize(
    "change",
    [
        {"base_digest": OTHER},
        {"uv_digest": OTHER},
        {"platform": "linux/arm64", "packages": [pure("small")]},
        {"packages": lock(wheels=SAME_NAME)},
        {"packages": lock(version="1.1", wheels=[wheel("small", "1.1")])},
        {"packages": [*lock(), pure("new")]},
        {"packages": lock()[1:]},
        {"packages": [{"name": "small", "version": "1.0", "sdist": sdist("small", "1.0")}]},
        {"matrix": changed('{python}-slim-bookworm"\nfamily = "debian"\npackages = ["git"]',
                           '{python}-slim-bookworm"\nfamily = "debian"\npackages = ["git", "make"]', EXAMPLE)},
        {"matrix": 'link-mode = "symlink"\n' + EXAMPLE},
        {"matrix": changed("0.13.8", "0.13.9", EXAMPLE)},
        {"matrix": changed("python:{python}-slim-bookworm", "python:{python}-bookworm", EXAMPLE)},
        {"pyproject": "[tool.uv]\nexclude-newer = '2026-01-01T00:00:00Z'\n"},
    ],
    ids=[
        "base", "uv", "platform", "hash", "version", "one-more-package", "one-package-less", "sdist-for-wheel",
        "system-packages", "link-mode", "uv-version", "base-image", "uv-settings",
    ],
)  # fmt: skip
def test_input_moves_the_key(key: Callable[..., str], change: dict[str, Any]) -> None:
    """Broken: an image is not rebuilt although an input changed."""
    unchanged = key(packages=[pure("small")]) if "platform" in change else key()
    assert key(**change) != unchanged


@pytest.mark.parametrize(
    "pyproject",
    [
        PYPROJECT.replace('"hatchling"]', '"hatchling", "hatch-vcs"]'),
        PYPROJECT.replace("hatchling.build", "hatchling.ouroboros"),
        PYPROJECT + '[tool.uv]\nbuild-constraint-dependencies = ["hatchling<2"]\n',
    ],
    ids=["requires", "backend", "constraints"],
)
def test_build_system_moves_the_key(key: Callable[..., str], pyproject: str) -> None:
    """Broken: an image lacks the project's new build backend."""
    packages = [*lock(), {"name": "app", "directory": {"path": "."}}]
    assert key(packages=packages, pyproject=pyproject) != key(packages=packages, pyproject=PYPROJECT)


@pytest.mark.parametrize(
    "change",
    [
        {"matrix": changed('"localhost:5000"\n"ghcr.io"', '"mirror.example.com"\n"ghcr.io"', EXAMPLE)},
        {"matrix": EXAMPLE + '[aliases]\nlatest = "3.12-bookworm-slim"\n'},
        {"matrix": changed('python = ["3.12", "3.13"]', 'python = ["3.12", "3.13", "3.14"]', EXAMPLE)},
        {"repository": ImageRef.from_str("other.example.com/ci")},
        {"pyproject": '[project]\nname = "app"\nversion = "2.0"\n'},
        {"packages": list(reversed(lock()))},
        {"packages": [*lock()[:2], pure("windows-only", "2.0", marker="sys_platform == 'win32'")]},
        {"packages": [package("fast", "2.1", "cp312-cp312-win_arm64", "cp312-cp312-manylinux_2_17_x86_64"),
                      *lock()[1:]]},
    ],
    ids=[
        "mirrors", "moving-tags", "other-cells", "repository", "own-version", "order", "windows-bump", "windows-wheel",
    ],
)  # fmt: skip
def test_what_is_not_in_the_image_leaves_the_key(key: Callable[..., str], change: dict[str, Any]) -> None:
    """Broken: images are rebuilt although none of their inputs changed."""
    assert key(**change) == key()


def test_tags(tmp_path: Path, base_digest: Digest, uv_digest: Digest) -> None:
    """Broken: jobs cannot name the image, or immutable and moving tags look alike."""
    matrix = EXAMPLE + '[aliases]\nlatest = "3.12-bookworm-slim"\nother = "3.12-alpine"\n'
    image = render(plan_of(tmp_path, matrix, *lock(), base_digest=base_digest, uv_digest=uv_digest))
    name = "registry.example.com/acme/ci"
    assert [str(tag) for tag in image.tags] == [
        f"{name}:3.12-bookworm-slim-{image.key[:12]}",
        f"{name}:3.12-bookworm-slim",
        f"{name}:latest",
    ]
