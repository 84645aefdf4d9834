"""The GitHub action's own scripts, run as a runner runs them, with a real registry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.conftest import own_name
from tests.integration.nightly import Nightly, standing
from tests.integration.registries import Registry, an_open_registry
from tests.integration.seeds import Seeds, published_once

pytestmark = pytest.mark.integration

__all__ = ["an_open_registry", "published_once"]

ACTION: Any = yaml.safe_load((Path(__file__).parents[2] / "action.yml").read_text(encoding="utf-8"))


def run(folder: Path, runner: Path, name: str, **variables: str) -> dict[str, str]:
    """Run a step by its name's beginning, with these variables; return its outputs."""
    (step,) = [each for each in ACTION["runs"]["steps"] if each["name"].startswith(name)]
    assert set(variables) == set(step.get("env", {}))
    files = {each: str(runner / each) for each in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_PATH")}
    (runner / "GITHUB_OUTPUT").write_text("")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "Acme/Shop", **files}
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]], cwd=folder,
        env={**environment, "RUNNER_TEMP": str(runner), **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = (runner / "GITHUB_OUTPUT").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_action_promotes_and_says_so(
    open_registry: Registry, tmp_path: Path, request: pytest.FixtureRequest, seeds: Seeds
) -> None:
    """Broken: the action builds nothing, moves the default branch's tags in a pull request, or leaves no summary."""
    project, runner = tmp_path / "project", tmp_path / "runner"
    project.mkdir()
    runner.mkdir()
    top = f"{open_registry.host}/{own_name(request)}"
    nightly = Nightly(folder=project, repository=f"{top}/ci", env={})
    nightly.lock()
    nightly.matrix()
    seeds.publish(nightly)
    host, _, path = f"{top}/ci".partition("/")
    before = standing(host, path, ["3.13-slim"])
    text = (project / "matrix.toml").read_text()
    (project / "matrix.toml").write_text("\n".join(line for line in text.splitlines() if "repository =" not in line))

    assert run(project, runner, "Choose", REGISTRY_IMAGE="") == {"registry-image": "ghcr.io/acme/shop"}
    assert run(project, runner, "Install", VERSION="") == {}
    login = {"CI_REGISTRY_IMAGE": top, "REGISTRY_USER": "x", "REGISTRY_PASSWORD": ""}
    assert run(project, runner, "Log in", **login) == {}
    given = {"CI_REGISTRY_IMAGE": top, "MATRIX": "matrix.toml", "LOCK": "uv.lock", "OPTIONS": "--jobs 1"}
    branch = run(project, runner, "Build", **given, PRUNE="true", PULL_REQUEST="42")
    assert branch == {"prebuilt": "-pr-42"}
    names = ["3.13-slim", "3.13-slim-pr-42"]
    assert set(standing(host, path, names).values()) == set(before.values())
    assert run(project, runner, "Build", **given, PRUNE="false", PULL_REQUEST="") == {"prebuilt": ""}
    summary = (runner / "GITHUB_STEP_SUMMARY").read_text()
    assert summary.count("## Images") == 2
    assert "| 3.13-slim | up-to-date |" in summary
    assert (project / "prebuilt-reports" / "report" / "index.html").exists()
