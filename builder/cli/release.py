"""`builder push`, `promote`, `rollback` and `prune`."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import click

from builder.cli.options import branch_option, cell_options, dry_run_option, json_option, matrix_option
from builder.cli.output.messages import print_note
from builder.cli.report import report, report_dry_run
from builder.cli.verbosity import verbosity
from builder.engine.docker import DockerEngine
from builder.image.render import RenderedImage
from builder.oci.registry import Registries
from builder.release.promote import fetch_rollback
from builder.release.prune import Retention, delete_unused, fetch_candidates
from builder.release.publisher import DryRunPublisher, Publisher, RegistryPublisher
from builder.release.state import RegistryState, fetch_states
from builder.request import (
    Project,
    Request,
    open_registries,
    read_journal_tag,
    read_project,
    record_folder,
    require_repository,
)
from builder.run import Publication, plan_images, promote_registered, push_verified


@click.command("push")
@cell_options
@dry_run_option
@json_option
def push_command(request: Request, *, dry_run: bool, as_json: bool) -> None:
    """Push images that were built and verified earlier, and move the tags that jobs use."""
    engine = DockerEngine()
    project, registries, states = _read_states(request, "push to", engine)
    publisher = _publisher(project, registries, dry_run=dry_run)
    _report(push_verified(states, engine, record_folder(), publisher), project, dry_run=dry_run, as_json=as_json)


@click.command("promote")
@cell_options
@dry_run_option
@json_option
def promote_command(request: Request, *, dry_run: bool, as_json: bool) -> None:
    """Move the tags that jobs use to images that the registry already has; build and push nothing."""
    project, registries, states = _read_states(request, "promote in", DockerEngine())
    publisher = _publisher(project, registries, dry_run=dry_run)
    _report(promote_registered(states, publisher), project, dry_run=dry_run, as_json=as_json)


@click.command("rollback")
@click.option("--repository", metavar="REPOSITORY", help="The images' repository.  [default: the matrix's]")
@matrix_option
@branch_option
@dry_run_option
@json_option
@verbosity
def rollback_command(
    repository: str | None, matrix: Path | None, branch: str | None, dry_run: bool, as_json: bool
) -> None:
    """Undo the latest promotion: move the tags back to the images that they named before.

    Needs only the registry with the images: it reads no lock and asks for no base image.
    """
    journal_tag, registries = read_journal_tag(repository, matrix, branch)
    moves = fetch_rollback(journal_tag, registries)
    publisher = DryRunPublisher() if dry_run else RegistryPublisher(registries=registries, compression="gzip")
    done = Publication(results=(), promotion=publisher.move(journal_tag, moves))
    if dry_run:
        report_dry_run(done, journal_tag.without_tag(), as_json=as_json, pushed=True)
    else:
        report(done, as_json=as_json, pushed=True)


@click.command("prune")
@cell_options
@click.option(
    "--keep", type=click.IntRange(0), default=3, show_default=True, help="Keep the images of this many promotions."
)
@click.option(
    "--branch-days",
    type=click.IntRange(0),
    default=30,
    show_default=True,
    help="Keep a branch's images this many days after its latest promotion. The branch of --branch keeps none.",
)
@click.option(
    "--hours",
    type=click.IntRange(0),
    default=24,
    show_default=True,
    help="Keep every image for this many hours, because an unfinished run may need it.",
)
@click.option("--delete", is_flag=True, help="Delete the images; without this option, only list them.")
def prune_command(request: Request, *, keep: int, branch_days: int, hours: int, delete: bool) -> None:
    """Delete immutable tags that no moving tag and none of the latest promotions use."""
    project = read_project(request)
    repository = require_repository("prune", project.matrix)
    registries = open_registries(project.matrix, project.mirrors)
    rendered = plan_images(project, registries)
    now = datetime.now(timezone.utc)
    retention = Retention(
        generations=keep, keys=_kept_keys(project, rendered), pushed_after=now - timedelta(hours=hours),
        promoted_after=now - timedelta(days=branch_days), deleted_branch=project.matrix.branch,
    )  # fmt: skip
    find = delete_unused if delete else fetch_candidates
    found = []
    for candidate in find(repository, registries, retention):
        found.append(candidate)
        click.echo(candidate.ref.familiar)
    print_note(f"builder: {len(found)} tags {'deleted' if delete else 'would be deleted; --delete deletes them'}")


def _kept_keys(project: Project, rendered: tuple[RenderedImage, ...]) -> set[str]:
    """The keys of the current plan; none for a branch, whose images may all be deleted."""
    return set() if project.matrix.branch else {image.key for image in rendered}


def _read_states(
    request: Request, purpose: str, engine: DockerEngine
) -> tuple[Project, Registries, tuple[RegistryState, ...]]:
    project = read_project(request)
    require_repository(purpose, project.matrix)
    registries = open_registries(project.matrix, project.mirrors, stopped=engine.buildx.processes.stopped)
    return project, registries, fetch_states(plan_images(project, registries), registries)


def _publisher(project: Project, registries: Registries, *, dry_run: bool) -> Publisher:
    if dry_run:
        return DryRunPublisher()
    return RegistryPublisher(registries=registries, compression=project.matrix.compression)


def _report(done: Publication, project: Project, *, dry_run: bool, as_json: bool) -> None:
    if dry_run:
        report_dry_run(done, project.image_repository, as_json=as_json, pushed=True)
    else:
        report(done, as_json=as_json, pushed=True)
