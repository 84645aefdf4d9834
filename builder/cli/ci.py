"""`builder ci`: jobs and pipelines for GitLab."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click

from builder.cli.options import PATH, cell_options, json_option, matrix_option, reports_option
from builder.cli.output import json as documents
from builder.cli.output.messages import print_file, print_note
from builder.cli.reporter import start_reports
from builder.cli.verbosity import is_quiet, verbosity
from builder.errors import UsageError
from builder.gitlab.adopt.adopt import adopt, adopt_without_matrix
from builder.gitlab.adopt.diff import added
from builder.gitlab.adopt.include import read_pipeline, top_folder
from builder.gitlab.adopt.remark import in_brief
from builder.gitlab.images import default_cell, dotenv, dotenv_warning, fetch_job_images, jobs_yaml
from builder.gitlab.pipeline import Commands, job_keywords, pipeline_yaml, read_runners
from builder.lock.discovery import find_matrix, matrix_in
from builder.matrix.file import read_matrix
from builder.matrix.model import Platform
from builder.parse import read_text
from builder.release.state import fetch_states
from builder.request import (
    Request,
    open_registries,
    read_cells,
    read_project,
    require_all_platforms,
    require_repository,
)
from builder.run import plan_images
from builder.whole_file import write_whole


@click.group("ci", no_args_is_help=True)
def ci_command() -> None:
    """Write the jobs and pipelines that GitLab reads, or adapt an existing .gitlab-ci.yml."""


@ci_command.command("images", short_help="Write a hidden job for each image, for jobs to extend.")
@cell_options
@click.option("--pin", is_flag=True, help="Name the images by digest, so that no promotion changes them.")
@click.option("--dotenv", "dotenv_path", type=PATH, metavar="FILE", help="Also write PREBUILT_<CELL>=<image> here.")
@click.option("-o", "--output", type=PATH, metavar="FILE", help="Where to write the YAML.  [default: stdout]")
def images_command(request: Request, *, pin: bool, dotenv_path: Path | None, output: Path | None) -> None:
    """Write the YAML that jobs include: a hidden job for each published cell, for them to extend."""
    matrix, mirrors = read_cells(request)
    matrix = matrix.by_tag()
    repository = require_repository("read the images from", matrix)
    images = fetch_job_images(matrix, repository, open_registries(matrix, mirrors))
    default = default_cell(matrix).name
    if dotenv_path:
        lines = dotenv(images, default, pin=pin)
        if warning := dotenv_warning(lines):
            print_note(f"builder: {dotenv_path}: {warning}")
        _write(dotenv_path, lines)
    _write(output, jobs_yaml(images, default, pin=pin))


@ci_command.command("pipeline", short_help="Write a child pipeline that builds and promotes.")
@cell_options
@click.option("--job", "keywords", type=PATH, metavar="FILE", help="YAML that every job gets: image, tags, services, …")
@click.option("--options", "building", default="", metavar="TEXT", help="More `builder build` options for each job.")
@click.option("--prune", is_flag=True, help="Afterwards, delete what nothing uses.")
@click.option(
    "--runners",
    multiple=True,
    metavar="OS/ARCH=TAG,…",
    help="The tags of runners for jobs that need a machine of this platform. Repeatable.",
)
@click.option("--environments", is_flag=True, help="A job for each cell, whose environment is the image's history.")
@reports_option
@click.option("-o", "--output", type=PATH, metavar="FILE", help="Where to write the pipeline.  [default: stdout]")
def pipeline_command(
    request: Request,
    *,
    keywords: Path | None,
    building: str,
    prune: bool,
    runners: tuple[str, ...],
    environments: bool,
    reports: Path | None,
    output: Path | None,
) -> None:
    """Write a child pipeline: jobs to build and verify each cell that the registry lacks, then one that moves the tags.

    The jobs that verify run on the images themselves. With --reports, the packages without a wheel and the bills of
    materials are written now, and the promotion writes all reports into a folder of the same name.
    """
    table = job_keywords(_text(keywords), str(keywords)) if keywords else {}
    if prune and request.branch:
        raise UsageError("--prune with --branch", hint="`builder prune --branch` deletes what a branch leaves behind")
    commands = Commands(
        options=request.options, build_options=_words(building), only=request.only, prune=prune,
        reports=reports.as_posix() if reports else "", environments=environments,
    )  # fmt: skip
    tags = read_runners(runners)
    project = read_project(request)
    require_all_platforms(request, project.matrix)
    reporter = start_reports(project, reports)
    require_repository("push to", project.matrix)
    registries = open_registries(project.matrix, project.mirrors)
    rendered = plan_images(project, registries)
    reporter.plan(rendered)
    states = fetch_states(rendered, registries)
    for platform in {state.rendered.plan.cell.platform for state in states if state.digest is None} - tags.keys():
        if platform != Platform.of_this_machine():
            print_note(f"builder: verifying images for {platform} takes such a runner: name its tags with --runners")
    _write(output, pipeline_yaml(states, table, commands, tags))


@ci_command.command("adopt", short_help="Print a diff that moves jobs to baked images.")
@click.argument("file", type=PATH, default=".gitlab-ci.yml", metavar="[FILE]")
@matrix_option
@click.option("--component", metavar="ADDRESS", default="", help="The component to include.")
@click.option("--explain", is_flag=True, help="Print every remark in full, with what to do.")
@json_option
@verbosity
def adopt_command(file: Path, matrix: Path | None, *, component: str, explain: bool, as_json: bool) -> None:
    """Print, as a diff, what to change in FILE so that its jobs run on baked images; write nothing.

    FILE defaults to .gitlab-ci.yml. The files that it includes from the same checkout are read and changed as well.
    Without a matrix.toml the diff adds one. It includes the component: the one at ADDRESS, such as
    $CI_SERVER_FQDN/acme/builder/prebuilt@1.0.0, or the project's copy, which it adds together with a matrix. What does
    not change is listed on stderr, with the reason; --explain says what to do about it.

    \b
    builder ci adopt | git apply
    """  # noqa: D301 - click takes the character, not the backslash
    pipeline = read_pipeline(file)
    top = pipeline.folder or Path.cwd()
    path = matrix or find_matrix() or matrix_in(top)
    if path:
        adoption = adopt(pipeline, read_matrix(path).by_tag(), component)
    else:
        adoption = adopt_without_matrix(pipeline, component)
    edited = {_shown(Path(each.file.source)): each for each in adoption.files}
    new = {_shown(top / name): text for name, text in adoption.new.items()}
    diffs = {name: each.diff(name) for name, each in edited.items()}
    diffs |= {name: added(name, text) for name, text in new.items()}
    if as_json:
        click.echo(json.dumps(documents.adoption_json(adoption, diffs), indent=2))
        return
    print_file("".join(diffs.values()))
    if is_quiet():
        return
    for line in [remark.full for remark in adoption.remarks] if explain else in_brief(adoption.remarks):
        print_note(line)
    if not any(diffs.values()):
        print_note(f"builder: nothing to change in {file}")
    for child in pipeline.children:
        print_note(f"builder: {child} is a child pipeline of its own; run `builder ci adopt {child}` too")


def _shown(path: Path) -> str:
    """The path relative to the working directory, or else relative to the top of the repository."""
    path = path.resolve()
    here = Path.cwd()
    return path.relative_to(here if path.is_relative_to(here) else top_folder(path)).as_posix()


def _words(options: str) -> list[str]:
    try:
        words = shlex.split(options)
    except ValueError as error:
        raise UsageError(f"--options {options!r} cannot be read: {error}", hint="quote it as in a shell") from error
    for word in words:
        if word.startswith(("--only", "--push", "--verify-later", "--promote", "--json", "--dry-run")):
            raise UsageError(f"--options contains {word}, which builder adds to each job itself", hint="remove it")
    return words


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _write(path: Path | None, text: str) -> None:
    """Write a file completely or not at all; write to stdout if the path is None, and to devices such as /dev/null."""
    if path is None:
        print_file(text)
        return
    path = path.resolve()
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
        else:
            write_whole(path, text)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", hint="name another file") from error
