"""Completion of values, and options in groups."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import click
import pytest
from click.shell_completion import ShellComplete

from builder.cli.main import cli
from builder.errors import RegistryError
from builder.oci.registry import Registries
from tests.commandline import builder
from tests.matrices import EXAMPLE


def completed(line: str, incomplete: str) -> list[str]:
    """What a Tab offers after this command line."""
    found = ShellComplete(cli, {}, "builder", "_BUILDER_COMPLETE").get_completions(line.split(), incomplete)
    return [item.value for item in found]


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project with two Pythons and two bases."""
    (tmp_path / "matrix.toml").write_text(f'{EXAMPLE}[aliases]\nlatest = "3.13-bookworm-slim"\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Registries, "fetch_tags", lambda *_: ("3.13-bookworm-slim", "3.9-old", "builder-journal"))


def test_only_completes_axes_of_the_matrix() -> None:
    """Broken: `--only` completes nothing, values of no cell, or the same axis twice."""
    assert completed("plan --only", "") == ["python=3.12", "python=3.13", "base=bookworm-slim", "base=alpine"]
    assert completed("build --only", "python=3.1") == ["python=3.12", "python=3.13"]
    assert completed("build --only", "python=3.12,b") == ["python=3.12,base=bookworm-slim", "python=3.12,base=alpine"]


def test_only_completes_profiles(tmp_path: Path) -> None:
    """Broken: `--only profile=` completes nothing, or matrices without profiles offer an empty one."""
    (tmp_path / "matrix.toml").write_text(f"{EXAMPLE}[profiles.lint]\ngroups = ['lint']\n", encoding="utf-8")
    assert completed("plan --only", "profile=") == ["profile=default", "profile=lint"]
    assert completed("plan --only", "python=3.12,profile=l") == ["python=3.12,profile=lint"]


def test_registry_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a Tab hangs, or prints why the registry refuses."""

    def refuse(*_: object) -> NoReturn:
        raise RegistryError("no")

    monkeypatch.setattr(Registries, "fetch_tags", refuse)
    assert completed("show", "3.12-a") == ["3.12-alpine"]
    monkeypatch.setattr(Registries, "fetch_tags", lambda self, _: () if self.stopped.wait(5) else ("3.12-late",))
    assert completed("show", "3.12") == ["3.12-bookworm-slim", "3.12-alpine"]


def test_tags_and_checks() -> None:
    """Broken: the tags of `diff` and `show`, or the checks of `verify`, are not completed."""
    assert completed("diff", "3.13") == ["3.13-bookworm-slim"]
    assert completed("diff", "3.9") == ["3.9-old"]
    assert completed("show", "bu") == []
    assert completed("show --repository registry.example.com/other", "3.9") == ["3.9-old"]
    assert completed("diff x", "l") == ["latest"]
    assert completed("show", "3.12-a") == ["3.12-alpine"]
    assert completed("verify img --check", "sync") == ["sync-frozen"]


def test_without_a_matrix_nothing_is_completed(tmp_path: Path) -> None:
    """Broken: a Tab prints a traceback where there is no matrix, or an invalid one."""
    (tmp_path / "matrix.toml").write_text("python = 1", encoding="utf-8")
    assert completed("plan --only", "") == []
    assert completed("diff", "3") == []


def test_zsh_needs_no_compinit_first() -> None:
    """Broken: the zsh script fails with "compdef: command not found" where compinit was not called before."""
    lines = builder("completion", "zsh").stdout.splitlines()
    assert lines[0] == "#compdef builder"
    before = lines[: next(number for number, line in enumerate(lines) if line.lstrip().startswith("compdef "))]
    assert any("compinit" in line for line in before)


def test_options_are_in_groups() -> None:
    """Broken: `--help` mixes what a command does with what chooses its cells, or loses an option."""
    said = builder("build", "--help").stdout
    sections = [line for line in said.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert sections == ["Options:", "Which cells, matrix and lock:", "Output:"]
    own, _, rest = said.partition("Which cells, matrix and lock:")
    cells, _, output = rest.partition("\nOutput:")
    assert "--push" in own
    assert "--only" in cells
    assert "--json" in output
    command = cli.get_command(click.Context(cli), "build")
    assert command is not None
    for parameter in command.params:
        assert all(name in said for name in parameter.opts if name.startswith("--")), parameter.name
