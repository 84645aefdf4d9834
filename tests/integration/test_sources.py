"""Packages that are built from source, with a toolchain that is not in the image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.conftest import docker
from tests.integration.shelf import Native, Project, open_shelf

pytestmark = pytest.mark.integration

TOOLCHAIN = 'build-packages = ["gcc", "libc6-dev", "libyaml-dev"]\n'
YAML = Native(
    header="int yaml_get_version_string(void);", call="yaml_get_version_string() != 0", flags=("-lyaml",)
)  # fmt: skip


def test_toolchain_does_not_ship(tmp_path: Path, scratch_repository: str) -> None:
    """Broken: what is built from source cannot be, brings its compiler into the image, or lacks a library there.

    Also: a bump compiles other packages again, and what one maker built is not found by the other.
    """
    folder = tmp_path / "project"
    folder.mkdir()
    env = {"BUILDER_CACHE_DIR": str(tmp_path / "cache")}
    project = Project(folder=folder, repository=scratch_repository, env=env)
    project.one_cell()
    with (folder / "matrix.toml").open("a") as file:
        file.write(TOOLCHAIN)
    with open_shelf(folder) as shelf:
        own = shelf.sdist("own", native=Native())
        project.packages(own, shelf.sdist("linked", native=YAML))
        (cell,) = json.loads(project.builder("plan", "--json").stdout)["cells"]
        built = project.builder("build", "--json", "--maker", "native")
        assert built.returncode == 1, built.stderr
        assert "libraries: /opt/uv/venv/lib/python3.13/site-packages/linked_native.cpython-313-" in built.stderr
        assert "needs libyaml-0.so.2 (package libyaml-0-2); add what is missing to the base's packages" in built.stderr

        project.packages(own, shelf.sdist("linked", "1.1", native=Native(call="43")))
        made = project.builder("build", "--json", "--maker", "buildkit")
        assert made.returncode == 0, made.stderr
        (cell,) = json.loads(made.stdout)["cells"]
        log = Path(cell["log"]).read_text()
        assert "build linked from source" in log
        assert "build own from source" not in log
    script = (
        "python -c 'import own_native, linked_native; print(own_native.answer(), linked_native.answer())'\n"
        "! command -v gcc cc ld; ! ls /usr/include/yaml.h; dpkg-query --show --showformat '${Package} '"
    )
    printed = docker("run", "--rm", f"{scratch_repository}:3.13-slim", "sh", "-c", script)
    assert printed.startswith("42 43\n")
    assert not {"gcc", "libc6-dev", "libyaml-dev"} & set(printed.split())
