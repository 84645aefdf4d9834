"""`builder init`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from builder.cli.output.messages import print_note, print_result
from builder.cli.verbosity import is_quiet, verbosity
from builder.errors import UsageError
from builder.folders import cache_folder
from builder.start.begin import begin
from builder.whole_file import write_whole


@click.command("init")
@click.option("--force", is_flag=True, help="Also replace matrix.toml, and add the include to .gitlab-ci.yml.")
@click.option(
    "--component",
    metavar="ADDRESS",
    default="",
    help="The component to include, such as $CI_SERVER_FQDN/acme/builder/prebuilt@1.0.0.  [default: a copy of it]",
)
@verbosity
def init_command(*, force: bool, component: str) -> None:
    """Write a first matrix.toml for the project in this folder, and the include for its pipeline.

    builder reads the lock, .python-version, pyproject.toml, .gitlab-ci.yml or GitHub's workflows, and the Dockerfile,
    and says what it decided and why. Nothing that exists is changed without --force.
    """
    beginning = begin(Path.cwd(), component, cache_folder(), force=force)
    for path, text in beginning.files.items():
        _write_whole(path, text)
        print_result(os.path.relpath(path))
    if not is_quiet():
        for line in beginning.said:
            print_note(f"builder: {line}")
        print_note(f"next: {beginning.command}")


def _write_whole(path: Path, text: str) -> None:
    """Write a file completely or not at all."""
    try:
        write_whole(path, text)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", hint="make the folder writable") from error
