"""`builder push`, `promote`, `rollback` and `prune`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import click

from builder.cli.grouped import GroupedCommand
from builder.cli.making import layered_build
from builder.cli.options import (
    PATH,
    branch_option,
    cell_options,
    dry_run_option,
    json_option,
    matrix_option,
    reports_option,
)
from builder.cli.output.messages import print_note
from builder.cli.report import report, report_dry_run
from builder.cli.reporter import start_reports
from builder.cli.verbosity import verbosity
from builder.engine.docker import DockerEngine
from builder.errors import UsageError, counted
from builder.folders import default_log_folder, layer_folder, record_folder
from builder.image.build import BuildSettings
from builder.image.index import indexes_of
from builder.image.render import RenderedImage
from builder.layer.buildkit import BuildKitMaker
from builder.layer.store import LayerStore
from builder.oci.reference import ImageRef
from builder.oci.registry import Registries
from builder.publication import Publication, promote_registered, push_verified
from builder.release.accept import accept
from builder.release.layers import fetch_unused_layers
from builder.release.promote import fetch_rollback
from builder.release.prune import Retention, delete_unused, fetch_candidates
from builder.release.publisher import DryRunPublisher, Publisher, RegistryPublisher
from builder.release.state import RegistryState, fetch_states
from builder.request import (
    Project,
    Request,
    layer_repositories,
    open_registries,
    read_journal_tag,
    read_project,
    require_all_platforms,
    require_repository,
)
from builder.run import plan_images
from builder.verify.inside import Check


@click.command("push", cls=GroupedCommand)
@cell_options
@dry_run_option
@json_option
def push_command(request: Request, *, dry_run: bool, as_json: bool) -> None:
    """Push images that were built and verified earlier, and move the tags that jobs use."""
    engine = DockerEngine()
    project, registries, states = _read_states(request, "push to", engine)
    publisher = _publisher(project, registries, dry_run=dry_run)
    settings = BuildSettings(mirrors=project.mirrors, secrets={}, logs=default_log_folder())
    maker = BuildKitMaker(buildx=engine.buildx, mirrors=project.mirrors)
    layered = layered_build(project, settings, registries, maker, publishes=True)
    done = push_verified(states, engine, record_folder(), layered, publisher)
    _report(done, project, dry_run=dry_run, as_json=as_json)


@click.command("promote", cls=GroupedCommand)
@cell_options
@click.option(
    "--results",
    type=PATH,
    metavar="DIR",
    help="The results of jobs that verified images of `builder build --verify-later DIR`: what passed is pushed.",
)
@dry_run_option
@reports_option
@json_option
def promote_command(
    request: Request, *, results: Path | None, dry_run: bool, reports: Path | None, as_json: bool
) -> None:
    """Move the tags that jobs use to images that the registry already has; build and push nothing."""
    if results and dry_run:
        raise UsageError(
            "--results with --dry-run", hint="results give images their immutable tags; omit one of the two"
        )
    project, registries, states = _read_states(request, "promote in", DockerEngine())
    require_all_platforms(request, project.matrix)
    reporter = start_reports(project, None if dry_run else reports)
    checks: Mapping[str, tuple[Check, ...]] = {}
    if results:
        repositories, store = layer_repositories(project.matrix), LayerStore(folder=layer_folder())
        checks = accept(states, results, registries, repositories=repositories, store=store)
        states = fetch_states([state.rendered for state in states], registries)
    publisher = _publisher(project, registries, dry_run=dry_run)
    done = promote_registered(states, publisher, checks)
    if not dry_run:
        reporter.end(done, registries)
    _report(done, project, dry_run=dry_run, as_json=as_json)


@click.command("rollback", cls=GroupedCommand)
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
    latest, moves = fetch_rollback(journal_tag, registries)
    publisher = DryRunPublisher() if dry_run else RegistryPublisher(registries=registries, compression="gzip")
    done = Publication(results=(), promotion=publisher.move(journal_tag, moves, latest=latest))
    if dry_run:
        report_dry_run(done, journal_tag.without_tag(), as_json=as_json, pushed=True)
    else:
        report(done, as_json=as_json, pushed=True)


@click.command("prune", cls=GroupedCommand)
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
    found: list[ImageRef] = []
    for candidate in find(repository, registries, retention):
        found.append(candidate.ref)
        click.echo(candidate.ref.familiar)
    for layer in _unused_layers(project, registries, found, retention):
        if delete:
            registries.delete(layer)
        found.append(layer)
        click.echo(layer.with_tag(str(layer.tag)).familiar)
    print_note(
        f"builder: {counted(len(found), 'tag')} {'deleted' if delete else 'would be deleted; --delete deletes them'}"
    )


def _unused_layers(
    project: Project, registries: Registries, images: Sequence[ImageRef], retention: Retention
) -> tuple[ImageRef, ...]:
    """The layers that no image has but those in `images`; none in a repository that may serve other projects too."""
    repositories = layer_repositories(project.matrix)
    if repositories is None or project.matrix.layers:
        return ()
    return fetch_unused_layers(repositories, images, registries, retention.pushed_after)


def _kept_keys(project: Project, rendered: tuple[RenderedImage, ...]) -> set[str]:
    """The keys of the current plan; none for a branch, whose images may all be deleted."""
    if project.matrix.branch:
        return set()
    return {image.key for image in rendered} | {index.key for index in indexes_of(rendered)}


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
    return RegistryPublisher(
        registries=registries,
        compression=project.matrix.compression,
        repositories=layer_repositories(project.matrix),
    )


def _report(done: Publication, project: Project, *, dry_run: bool, as_json: bool) -> None:
    if dry_run:
        report_dry_run(done, project.image_repository, as_json=as_json, pushed=True)
    else:
        report(done, as_json=as_json, pushed=True)
