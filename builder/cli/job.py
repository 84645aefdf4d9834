"""`builder run` and `builder shell`: a CI job on an image, here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from builder.cli.grouped import GroupedCommand
from builder.cli.options import cell_options
from builder.cli.output.messages import print_note
from builder.cli.verbosity import is_quiet
from builder.engine.docker import DockerEngine
from builder.errors import UsageError, listed
from builder.folders import layer_folder, root_folder
from builder.gitlab.images import default_cell
from builder.layer.store import LayerStore
from builder.matrix.model import Cell, Matrix
from builder.means import Here
from builder.process import ProcessGroup
from builder.rehearsal import Rehearsal, described, job_script, job_variables, parse_variables, rehearse
from builder.rehearsal_unpacked import rehearse_unpacked
from builder.request import Project, Request, open_registries, read_project
from builder.verify.checkout import Checkout

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _job_options(command: _Command) -> _Command:
    for option in (
        click.option("--image", metavar="IMAGE", help="Another image.  [default: the moving tag of the cell]"),
        click.option("--mount", "mounted", is_flag=True,
                     help="Work in this folder itself, so that what the job writes stays.  [default: in a copy]"),
        click.option("-e", "--env", "variables", multiple=True, metavar="NAME[=VALUE]",
                     help="A variable for the job. Repeatable."),
        click.option("--no-network", is_flag=True, help="Without a network."),
        click.option("-u", "--user", metavar="UID[:GID]", help="As this user.  [default: the image's, root]"),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command("run", cls=GroupedCommand, context_settings={"allow_interspersed_args": False})
@click.argument("arguments", nargs=-1, required=True, metavar="COMMAND [ARGUMENT]…", type=click.UNPROCESSED)
@click.option("--no-sync", is_flag=True, help="Do not install the project first, by `uv sync --frozen`.")
@_job_options
@cell_options
def run_command(request: Request, /, *, arguments: tuple[str, ...], no_sync: bool, **options: Any) -> None:
    """Run a command as a CI job would: on the cell's image, in a checkout, with a job's variables.

    \b
    builder run -- pytest -x
    builder run --only python=3.12 --user 1000 --no-network 'ruff check . && pytest'

    The checkout is a copy of what git tracks or would add, as a runner has it; it goes when the job ends. The project
    is installed first. The exit code is that of the command.
    """  # noqa: D301 - click takes the character, not the backslash
    project = read_project(request)
    lock = project.locks[_cell_of(project.matrix).profile]
    _rehearse(project, job_script(arguments, lock, sync=not no_sync, network=not options["no_network"]), **options)


@click.command("shell", cls=GroupedCommand)
@_job_options
@cell_options
def shell_command(request: Request, /, **options: Any) -> None:
    """Open a shell where a CI job would run: on the cell's image, in a checkout, with a job's variables."""
    _rehearse(read_project(request), None, **options)


def _rehearse(
    project: Project,
    script: str | None,
    *,
    image: str | None,
    user: str | None,
    no_network: bool,
    mounted: bool,
    variables: tuple[str, ...],
) -> None:
    checkout = Checkout.of(project.locks[_cell_of(project.matrix).profile])
    job = Rehearsal(
        image=image or _image_of(project), checkout=checkout, script=script, user=user, network=not no_network,
        variables=job_variables(checkout, parse_variables(variables, os.environ)), mounted=mounted,
        terminal=sys.stdin.isatty() and sys.stdout.isatty(),
    )  # fmt: skip
    if not is_quiet():
        print_note(f"builder: {described(job)}")
    engine = DockerEngine()
    if sys.platform != "linux" or engine.is_running():
        sys.exit(rehearse(job, engine))
    if not is_quiet():
        print_note("builder: no Docker engine answers, so the registry's image is unpacked here")
    registries = open_registries(project.matrix, project.mirrors)
    store = LayerStore(folder=layer_folder())
    processes = ProcessGroup()
    here = Here(registries=registries, store=store, folder=root_folder(), processes=processes)
    sys.exit(rehearse_unpacked(job, here))


def _cell_of(matrix: Matrix) -> Cell:
    """The chosen cell; of several, the default one. Raises UsageError if --only leaves no cell."""
    if not matrix.cells:
        raise UsageError("no cell is left", hint="choose one with --only")
    return default_cell(matrix.by_tag())


def _image_of(project: Project) -> str:
    """The moving tag of the chosen cell."""
    matrix = project.matrix.by_tag()
    cell = _cell_of(matrix)
    if len(matrix.cells) > 1 and not is_quiet():
        others = [other.name for other in matrix.cells if other != cell]
        print_note(f"builder: {cell.name}, the default cell; --only chooses another: {listed(others)}")
    return project.image_repository.with_tag(matrix.moving_tags(cell)[0]).familiar
