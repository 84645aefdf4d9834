"""`builder verify`, `diff`, `schema` and `completion`."""

from __future__ import annotations

import json
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from builder.cli.options import PATH, cell_options, json_option, matrix_option
from builder.cli.output import json as documents
from builder.cli.output import text
from builder.cli.output.messages import print_note, print_result
from builder.cli.verbosity import is_quiet, verbosity
from builder.contract import CELL_LABEL
from builder.engine.docker import DockerEngine
from builder.errors import UsageError, VerifyError, listed, near
from builder.folders import layer_folder
from builder.layer.store import LayerStore
from builder.matrix.model import Platform
from builder.matrix.schema import SCHEMA_ID, schema
from builder.oci.reference import has_registry
from builder.release.diff import Side, compare, fetch_side, planned_side
from builder.release.local import local_side
from builder.request import (
    Request,
    open_registries,
    published_repository,
    read_checkout,
    read_matrix_or_none,
    read_project,
)
from builder.run import plan_images
from builder.secret import proxy_logins, read_build_secrets
from builder.verify.checks import CHECKS
from builder.verify.moved import lock_changes
from builder.verify.runner import failed_checks, run_checks, subject_of
from builder.verify.search import BuildInputs


@click.command("verify")
@click.argument("image")
@click.option(
    "--lock",
    type=PATH,
    metavar="LOCK",
    help="The lock of the project that jobs check out.  [default: the nearest, here or above]",
)
@matrix_option
@click.option("--check", "only", multiple=True, metavar="NAME", help="Run only this check. Repeatable.")
@json_option
@verbosity
def verify_command(image: str, lock: Path | None, matrix: Path | None, only: tuple[str, ...], as_json: bool) -> None:
    """Check that IMAGE works as a CI job image, as a runner would use it."""
    for name in only:
        if name not in CHECKS:
            raise UsageError(f"no check {name!r}{near(name, CHECKS)}", hint=f"checks: {', '.join(CHECKS)}")
    quiet = is_quiet()
    engine = DockerEngine()
    cell = (engine.find_image_config(image).labels or {}).get(CELL_LABEL, "")
    checkout = read_checkout(matrix, lock, cell)
    own = read_matrix_or_none(matrix)
    public_ca = own.ca if own else b""
    inputs = BuildInputs(secrets=read_build_secrets(), proxy_logins=proxy_logins(), public=public_ca)
    store = LayerStore(folder=layer_folder())
    subject = subject_of(image, engine, checkout=checkout, inputs=inputs, store=store)
    moved = lock_changes(subject.facts, own)
    if moved:
        print_note(f"builder: the lock is not the one of this image: {listed(moved, most=4)}")
    checks = run_checks(subject, only=only, on_check=lambda name: None if quiet else print_note(f"… {name}"))
    if as_json:
        click.echo(json.dumps({"image": image, "checks": [documents.check_json(check) for check in checks]}, indent=2))
    else:
        print_result(text.checks_table(checks))
    if faults := failed_checks(checks):
        names = listed([check.name for check in faults], most=len(CHECKS))
        if moved:
            raise VerifyError(
                f"{image} was built from another lock ({listed(moved, most=4)}); failed: {names}",
                hint="build it again, or name its own lock with --lock",
            )
        raise VerifyError(f"{image} failed verification: {names}")


@click.command("diff")
@click.argument("old")
@click.argument("new", required=False)
@cell_options
@click.option("--local", is_flag=True, help="Compare images of the engine here.  [default: without a repository]")
@json_option
def diff_command(request: Request, *, old: str, new: str | None, local: bool, as_json: bool) -> None:
    """Compare two images, or an image with what would be built now.

    OLD and NEW are tags of the matrix's repository, or full references with a tag or digest. Without a repository, or
    with --local, they are images of the engine on this machine. Where tags have images for several platforms, those for
    --platform are compared, by default those for this machine.
    """
    project = read_project(request)
    registries = open_registries(project.matrix, project.mirrors)
    repository = published_repository(project.matrix)
    own, platforms = Platform.of_this_machine(), [cell.platform for cell in project.matrix.cells]
    platform = own if own in platforms else platforms[0]  # with --platform there is one

    def side(text: str) -> Side:
        if local or (repository is None and not has_registry(text)):
            return local_side(text, project.image_repository, DockerEngine())
        return fetch_side(text, repository, registries, platform)

    before = side(old)
    after = side(new) if new else planned_side(before, plan_images(project, registries))
    difference = compare(before, after)
    if as_json:
        click.echo(json.dumps(documents.diff_json(difference), indent=2))
    else:
        print_result(text.diff_table(difference))


@click.command("schema")
@click.option("--id", "address", metavar="URL", default=SCHEMA_ID, help="Where you publish it: the schema's $id.")
def schema_command(address: str) -> None:
    """Print the JSON Schema of matrix.toml, for editors."""
    click.echo(schema(address), nl=False)


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print the completion script of a SHELL: eval "$(builder completion bash)"."""
    completion = get_completion_class(shell)
    if completion:
        click.echo(completion(context.find_root().command, {}, "builder", "_BUILDER_COMPLETE").source())
