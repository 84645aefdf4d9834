"""Values with quotes, '$', line breaks and shell syntax stay data in the RUN scripts of a real shell."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.image.render import render
from builder.lock.model import BuildSystem
from builder.matrix.model import Cell
from builder.oci.reference import Digest
from tests.cells import alpine, debian
from tests.locks import pure
from tests.matrices import EXAMPLE
from tests.plans import plan_of

HOSTILE = ("; touch x", "$HOME", "${HOME}", "$(touch x)", "`touch x`", "'", '"', "a b", "\\", "&& touch x", "*", "EOF")

# Stands in for what a RUN starts: prints each of its arguments.
_ECHO = "echo_arguments() { for argument; do printf '<%s>\\n' \"$argument\"; done; }\n"


def scripts(dockerfile: str) -> list[str]:
    """The scripts of the RUN instructions."""
    return re.findall(r"<<'EOF'\n(.*?)^EOF$", dockerfile, re.MULTILINE | re.DOTALL)


def sh(script: str, folder: Path, *options: str) -> str:
    """Run the script in the folder, which must stay empty, with only the shell's built-in commands."""
    shell, env = shutil.which("sh") or "/bin/sh", {"PATH": "/nowhere"}
    done = subprocess.run(
        [shell, *options], cwd=folder, env=env, input=script, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder to run scripts in."""
    made = tmp_path / "run"
    made.mkdir()
    return made


@pytest.mark.parametrize(("cell", "command"), [(debian, "apt-get"), (alpine, "apk")])
def test_system_packages_stay_words(
    tmp_path: Path, folder: Path, base_digest: Digest, uv_digest: Digest, cell: Callable[..., Cell], command: str
) -> None:
    """Broken: the shell runs a system package's name as a command."""
    plan = plan_of(tmp_path, EXAMPLE, pure("one"), base_digest=base_digest, uv_digest=uv_digest)
    hostile = cell(packages=HOSTILE)
    dockerfile = dict(render(dataclasses.replace(plan, cell=hostile)).files)["Dockerfile"].decode()
    (script,) = [each for each in scripts(dockerfile) if f"{command} " in each]
    stub = re.sub(rf"^{command} ", "echo_arguments ", script, flags=re.MULTILINE).replace("rm -rf", ": ")
    assert sh(_ECHO + stub, folder).splitlines()[-len(HOSTILE) :] == [f"<{value}>" for value in HOSTILE]


def test_build_backends_stay_words(tmp_path: Path, folder: Path, base_digest: Digest, uv_digest: Digest) -> None:
    """Broken: the shell runs a build backend's name as a command."""
    plan = plan_of(tmp_path, EXAMPLE, pure("one"), base_digest=base_digest, uv_digest=uv_digest)
    systems = tuple(BuildSystem(requires=("hatchling",), backend=value, constraints=()) for value in HOSTILE)
    selection = dataclasses.replace(plan.selection, build_systems=systems)
    dockerfile = dict(render(dataclasses.replace(plan, selection=selection)).files)["Dockerfile"].decode()
    lines = [
        line.replace("/tmp/build-system/bin/python", "echo_arguments").partition(" > ")[0]
        for line in dockerfile.splitlines()
        if "requires.py /run" in line
    ]
    assert sh(_ECHO + "\n".join(lines), folder).splitlines()[2::3] == [f"<{value}>" for value in HOSTILE]


@pytest.mark.parametrize(
    "dockerfile", sorted((Path(__file__).parents[1] / "golden").glob("*/Dockerfile")), ids=lambda path: path.parent.name
)
def test_every_script_is_one(dockerfile: Path, folder: Path) -> None:
    """Broken: a rendered RUN is not a valid script."""
    found = scripts(dockerfile.read_text(encoding="utf-8"))
    assert len(found) >= 2
    for script in found:
        sh(script, folder, "-n")
