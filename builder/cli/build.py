"""`builder plan`, `render` and `build`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from builder.cli.grouped import GroupedCommand
from builder.cli.making import BuildRun, layered_build
from builder.cli.options import PATH, cell_options, dry_run_option, json_option, reports_option
from builder.cli.output import json as documents
from builder.cli.output import text
from builder.cli.output.live import Display, ProgressMode
from builder.cli.output.messages import print_error, print_note, print_result
from builder.cli.output.plan import plan_details, plan_table
from builder.cli.output.preflight import preflight_json, preflight_text
from builder.cli.report import (
    check_project,
    expected_seconds,
    read_noted_project,
    report,
    report_dry_run,
    report_made,
)
from builder.cli.reporter import start_reports
from builder.cli.verbosity import is_quiet, is_verbose
from builder.engine.buildx import Buildx, Provenance
from builder.errors import BuilderError, RegistryError, UsageError
from builder.folders import default_log_folder, sdist_folder
from builder.image.build import BuildSettings, check_log_folder
from builder.image.render import RenderedImage
from builder.layer.build import LayerStatus
from builder.layer.buildkit import BuildKitMaker
from builder.lock.host import describe_hosts
from builder.lock.preflight import preflight, preflight_error
from builder.lock.source_tree import fetch_source_trees
from builder.matrix.model import Platform
from builder.means import MakerName
from builder.oci.registry import Registries
from builder.publication import PromoteMode, Publication, build_and_publish
from builder.release.publisher import DryRunPublisher
from builder.release.state import Explanation, fetch_explanations, fetch_states
from builder.request import (
    Project,
    Request,
    open_registries,
    published_repository,
    require_repository,
)
from builder.run import plan_cells, plan_images
from builder.secret import (
    check_provenance,
    credential_hosts,
    proxy_arguments,
    proxy_logins,
    read_build_secrets,
    read_uv_python_secret,
    uses_agent,
)


@click.command("plan", cls=GroupedCommand)
@cell_options
@click.option("--exit-code", is_flag=True, help="Exit with 1 when a cell would be built or a tag moved, for pipelines.")
@click.option("--check-hosts", is_flag=True, help="Ask each host that the lock names whether it answers.")
@click.option(
    "--check", is_flag=True, help="Only check that lock and matrix fit, and that the lock is current; ask no registry."
)
@json_option
def plan_command(request: Request, *, exit_code: bool, check_hosts: bool, check: bool, as_json: bool) -> None:
    """Show what would be built, and why: each cell's packages, download and status.

    With -v also images, keys, tags and layers. A cell that the lock does not cover does not keep the others from being
    planned.
    """
    if check:
        if exit_code or check_hosts or as_json:
            raise UsageError(
                "--check with --exit-code, --check-hosts or --json", hint="--check prints only what is wrong"
            )
        check_project(request)
        return
    project = read_noted_project(request)
    found = preflight(project.locked_cells, lambda sdists: fetch_source_trees(sdists, sdist_folder()))
    error = preflight_error(found)
    if error and not found.good and not as_json:
        raise error
    hosts = describe_hosts(found.hosts, credential_hosts(), ask=check_hosts)
    registries = open_registries(project.matrix, project.mirrors)
    try:
        rendered = plan_images(project.with_cells(found.good), registries) if found.good else ()
    except BuilderError:
        if error:
            print_error(error)
        raise
    explanations = _explanations(project, rendered, registries, required=exit_code)
    layers = _fetch_layers(project, registries, rendered, explanations)
    if as_json:
        more = {"preflight": preflight_json(found, hosts), "notes": list(project.notes)}
        click.echo(json.dumps(documents.plan_json(rendered, explanations, layers) | more, indent=2))
    else:
        table = plan_details if is_verbose() else plan_table
        print_result("\n".join(filter(None, [table(rendered, explanations, layers), preflight_text(found, hosts)])))
    if error:
        raise error
    if exit_code and any(explanation.status != "up-to-date" for explanation in explanations.values()):
        sys.exit(1)


def _fetch_layers(
    project: Project,
    registries: Registries,
    rendered: Sequence[RenderedImage],
    explanations: Mapping[str, Explanation],
) -> dict[str, LayerStatus]:
    """Look for the layers of the cells that need a build, by the cell's name; none if a registry does not answer."""
    settings = BuildSettings(mirrors=project.mirrors, secrets={}, logs=default_log_folder())
    maker = BuildKitMaker(buildx=Buildx(), mirrors=project.mirrors)
    layered = layered_build(project, settings, registries, maker, publishes=False)
    built = {name for name, explanation in explanations.items() if explanation.status in {"up-to-date", "to-promote"}}
    wanted = [image for image in rendered if image.plan.cell.name not in built]
    try:
        return {image.plan.cell.name: layered.fetch_status(image) for image in wanted}
    except RegistryError:
        return {}


def _explanations(
    project: Project, rendered: Sequence[RenderedImage], registries: Registries, *, required: bool
) -> Mapping[str, Explanation]:
    """Why each cell would be built; empty if there is no repository or, unless required, if it cannot be read."""
    try:
        return fetch_explanations(rendered, registries) if published_repository(project.matrix) else {}
    except RegistryError as error:
        if required:
            raise
        print_error(error)
        return {}


@click.command("render", cls=GroupedCommand)
@cell_options
@click.option("-o", "--output", type=PATH, required=True, metavar="DIR", help="Write a folder for each cell here.")
def render_command(request: Request, *, output: Path) -> None:
    """Write each cell's build context: its Dockerfile, and what it installs from the lock."""
    project = read_noted_project(request)
    rendered = plan_images(project, open_registries(project.matrix, project.mirrors))
    for image in rendered:
        folder = output / image.plan.cell.name
        if folder.exists() and not (folder / "Dockerfile").is_file() and any(folder.iterdir()):
            raise UsageError(f"{folder} exists and was not written by builder", hint="name another folder with -o")
    for image in rendered:
        folder = output / image.plan.cell.name
        image.replace(folder)
        click.echo(str(folder))


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """The options of `builder build`, without those that choose cells."""

    jobs: int
    no_verify: bool
    reverify: bool
    no_cache: bool
    pull: bool
    builder: str | None
    maker: MakerName
    progress: ProgressMode
    log_dir: Path
    push: bool
    verify_later: Path | None
    promote: PromoteMode
    dry_run: bool
    provenance: Provenance | None
    sbom: bool
    timings: bool
    reports: Path | None
    as_json: bool

    @property
    def reuse(self) -> bool:
        """Whether an image that an earlier run verified on this machine can be used."""
        attested = self.sbom or self.provenance is not None
        return not (self.reverify or self.no_cache or self.pull or attested)

    def settings(self, project: Project) -> BuildSettings:
        """The settings for building this project's images."""
        cached = project.matrix.cache == "registry" and published_repository(project.matrix) is not None
        mirrors = project.matrix.index_mirrors
        if mirrors.pairs and (self.sbom or self.provenance):
            what = "images with attestations are built from a Dockerfile, which knows no mirrors of indexes"
            raise UsageError(what, hint="remove index-mirrors from the matrix, or --provenance and --sbom")
        return BuildSettings(
            mirrors=project.mirrors, proxy_arguments=proxy_arguments(),
            secrets=read_build_secrets(project.matrix.ssh) | read_uv_python_secret(project.matrix.cells),
            proxy_logins=proxy_logins(), logs=self.log_dir, no_cache=self.no_cache, pull=self.pull, reads_cache=cached,
            writes_cache=cached and self.push, provenance=self.provenance, sbom=self.sbom, reverify=self.reverify,
            index_mirrors=mirrors, ssh_agent=uses_agent(project.matrix.ssh),
        )  # fmt: skip


@click.command("build", cls=GroupedCommand)
@cell_options
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Cells to build at a time.")
@click.option("--no-verify", is_flag=True, help="Do not verify the images.")
@click.option("--reverify", is_flag=True, help="Build and verify again images that were verified on this machine.")
@click.option("--no-cache", is_flag=True, help="Run every build step again.")
@click.option("--pull", is_flag=True, help="Check for newer base images even if the engine has them.")
@click.option(
    "--builder", envvar="BUILDX_BUILDER", metavar="NAME", help="The buildx builder to use; also $BUILDX_BUILDER."
)
@click.option(
    "--maker",
    type=click.Choice(["auto", "buildkit", "native", "cross"]),
    default="auto",
    show_default=True,
    envvar="BUILDER_MAKER",
    show_envvar=True,
    help="What makes the layers: BuildKit, or this machine (docs/makers.md).",
)
@click.option(
    "--progress",
    type=click.Choice(["auto", "plain", "tty"]),
    default="auto",
    show_default=True,
    help="How to show progress.",
)
@click.option(
    "--log-dir",
    type=PATH,
    default=default_log_folder,
    metavar="DIR",
    help="Where to keep each cell's log.  [default: ~/.cache/builder/logs]",
)
@click.option("--push", is_flag=True, help="Push what the registry lacks, then move the tags that jobs use.")
@click.option(
    "--verify-later",
    type=PATH,
    metavar="DIR",
    help="With --push: push under tags that end in -unverified, move none, and write to DIR what jobs need that "
    "verify the images; `builder promote --results DIR` then moves the tags.",
)
@dry_run_option
@click.option(
    "--promote",
    type=click.Choice(["all", "passed", "none"]),
    default="all",
    show_default=True,
    help="With --push: move the tags of all cells if all passed, of those that passed, or of none.",
)
@click.option(
    "--provenance",
    type=click.Choice(["min", "max"]),
    is_flag=False,
    flag_value="min",
    help="Attest how each image was built; max includes every detail.  [without a value: min]",
)
@click.option("--sbom", is_flag=True, help="Attest what each image contains.")
@click.option("--timings", is_flag=True, help="Print where the time of each cell went.")
@reports_option
@json_option
def build_command(request: Request, /, **flags: Any) -> None:
    """Build, verify and tag an image for each cell; with --push, only what the registry lacks."""
    options = BuildOptions(**flags)
    if options.push and options.no_verify:
        raise UsageError("--push with --no-verify", hint="omit one of the two; --verify-later verifies in another job")
    if options.verify_later and (not options.push or options.promote == "passed"):
        raise UsageError("--verify-later without --push, or with --promote", hint="add --push; nothing is promoted yet")
    if options.maker == "native" and (options.sbom or options.provenance):
        raise UsageError(
            "--maker native with --provenance or --sbom", hint="only BuildKit attests; omit one of the two"
        )
    check_provenance(options.provenance)
    project = read_noted_project(request) if options.push else _for_one_platform(read_noted_project(request))
    settings = options.settings(project)  # reports errors in the environment before the first request
    if options.push:
        require_repository("push to", project.matrix)
    buildx = Buildx(builder=options.builder)
    registries = open_registries(project.matrix, project.mirrors, stopped=buildx.processes.stopped)
    reporter = start_reports(project, None if options.dry_run else options.reports)
    rendered = plan_images(project, registries)
    if options.dry_run:
        done = _dry_run(rendered, registries, options)
        report_dry_run(done, project.image_repository, as_json=options.as_json, pushed=options.push)
        return
    check_log_folder(options.log_dir)
    with Display(expected_seconds(rendered), progress=options.progress, quiet=is_quiet()) as display:
        run = BuildRun(
            project=project, settings=settings, registries=registries, buildx=buildx, display=display,
            maker=options.maker, jobs=options.jobs, reuse=options.reuse, verifies=not options.no_verify,
            publishes=options.push, later=options.verify_later,
        )  # fmt: skip
        done = run.build(rendered, options.promote)
    if options.timings:
        print_note(text.timings_table(done.results))
    report_made(done, pushed=options.push)
    reporter.end(done, registries)
    report(done, as_json=options.as_json, pushed=options.push)


def _for_one_platform(project: Project) -> Project:
    """The cells for this machine's platform: an image that is not published stays in an engine, as a tag's only one."""
    several = project.matrix.cells[0].platforms
    if len({cell.platform for cell in project.matrix.cells}) == 1:
        return project
    own = Platform.of_this_machine()
    platform = own if own in several else several[0]
    if not is_quiet():
        print_note(f"builder: only for {platform}: without --push, images are for one platform (--platform)")
    return replace(project, matrix=project.matrix.on(platform))


def _dry_run(rendered: tuple[RenderedImage, ...], registries: Registries, options: BuildOptions) -> Publication:
    if not options.push:
        return Publication(results=plan_cells(rendered))
    return build_and_publish(fetch_states(rendered, registries), plan_cells, DryRunPublisher(), promote=options.promote)
