"""What `make newcomer` plays is what README.md says."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from builder.cli.main import COMMANDS


@pytest.fixture(scope="module")
def script(repository_root: Path) -> dict[str, Any]:
    """What `.ci/newcomer` defines."""
    return runpy.run_path(str(repository_root / ".ci" / "newcomer"))


def test_commands_are_those_of_the_readme(script: dict[str, Any], repository_root: Path) -> None:
    """Broken: the newcomer types something else than readers do, or comments, or nothing."""
    text = (repository_root / "README.md").read_text(encoding="utf-8")
    found = script["commands"](text)
    assert all(f"\n$ {command}" in text for command in found)
    assert not any("#" in command for command in found)
    typed = [command.split()[1] for command in found if command.startswith("builder ")]
    assert typed == ["init", "build", "ci"]
    assert set(typed) <= set(COMMANDS)
    assert (found[0], found[-1]) == ("uv tool install prebuilt", "git push")


def test_readme_without_the_section_is_an_error(script: dict[str, Any]) -> None:
    """Broken: after a heading was renamed, the newcomer types nothing and is happy."""
    with pytest.raises(ValueError, match=r"README\.md has no commands under"):
        script["commands"]("# builder\n\n## Another\n\n```console\n$ true\n```\n")


def test_first_failure_ends_it(script: dict[str, Any]) -> None:
    """Broken: a command of README fails, and the newcomer goes on; or uses the address of the example."""
    lines = script["script"](["export A=registry.example.com/acme/shop", "builder init"], "r:1/x").splitlines()
    assert (lines[0], lines[2], lines[-1]) == ("set -eo pipefail", "export A=r:1/x", "builder init")
