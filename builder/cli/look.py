"""`builder ls`, `show` and `doctor`: what is in the registry and in an image, and whether builder can work here."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import click

from builder.cli.options import branch_option, json_option, matrix_option
from builder.cli.output import look
from builder.cli.output.messages import print_note, print_result
from builder.cli.values import complete_tag
from builder.cli.verbosity import verbosity
from builder.doctor import Diagnosis, diagnose
from builder.engine.docker import DockerEngine
from builder.errors import BuilderError, EngineError, counted
from builder.matrix.facts import NEWEST_PYTHON
from builder.matrix.file import built_in_matrix
from builder.matrix.model import branch_slug
from builder.oci.reference import ImageRef, Mirrors, has_registry, is_tag
from builder.oci.registry import Registries
from builder.release.catalogue import fetch_catalogue
from builder.release.contents import Contents, fetch_contents
from builder.release.local import local_contents
from builder.request import (
    Request,
    mirrors_of_environment,
    published_repository,
    read_cells,
    read_matrix_or_none,
    read_project,
    read_repository,
)

repository_option = click.option(
    "--repository", metavar="NAME", help="The images' repository.  [default: the matrix's]"
)


@click.command("ls")
@repository_option
@matrix_option
@click.option("-a", "--all", "everything", is_flag=True, help="Also the immutable tags.")
@json_option
@verbosity
def ls_command(*, repository: str | None, matrix: Path | None, everything: bool, as_json: bool) -> None:
    """List the images in the registry: tags, age, size, digest, key, status, and who moved the tag there."""
    home, registries = read_repository("list", repository, matrix)
    listed = fetch_catalogue(home, registries)
    if as_json:
        click.echo(json.dumps(look.catalogue_json(home, listed), indent=2))
        return
    print_result(look.catalogue_table(listed, datetime.now(timezone.utc), everything=everything))
    if not listed:
        print_note(f"builder: {home.familiar} has no image of builder; `builder build --push` publishes some")


@click.command("show")
@click.argument("tag", shell_complete=complete_tag)
@repository_option
@matrix_option
@branch_option
@click.option("--local", is_flag=True, help="An image of the engine here.  [default: without a repository]")
@json_option
@verbosity
def show_command(
    *, tag: str, repository: str | None, matrix: Path | None, branch: str | None, local: bool, as_json: bool
) -> None:
    """Show what is in an image: packages and layers, and what each takes of its size.

    TAG is one of the matrix's repository, or a full reference. Without a repository, or with --local, it is an image of
    the engine on this machine, whose sizes are those of its unpacked files.
    """
    named = f"{tag}-{branch_slug(branch)}" if branch and is_tag(tag) else tag
    contents = _local(named, matrix) if local else _registered(named, repository, matrix)
    if as_json:
        click.echo(json.dumps(look.contents_json(contents), indent=2))
    else:
        print_result(look.contents_table(contents))


def _registered(tag: str, repository: str | None, matrix: Path | None) -> Contents:
    """An image of a registry; of the engine, if no registry is named anywhere."""
    own = read_matrix_or_none(matrix) if repository is None else None
    has_home = repository is not None or (published_repository(own) if own else os.environ.get("CI_REGISTRY_IMAGE"))
    if not (has_home if is_tag(tag) else has_registry(tag)):
        return _local(tag, matrix)
    if not is_tag(tag):
        return fetch_contents(ImageRef.from_str(tag), Registries(Mirrors()))
    home, registries = read_repository("show", repository, matrix)
    return fetch_contents(home.with_tag(tag), registries)


def _local(tag: str, matrix: Path | None) -> Contents:
    home = read_project(Request(matrix=matrix)).image_repository if is_tag(tag) else ImageRef.from_str(tag)
    return local_contents(tag, home, DockerEngine())


@click.command("doctor")
@matrix_option
@json_option
@verbosity
def doctor_command(*, matrix: Path | None, as_json: bool) -> None:
    """Check that builder can work here: engine, registries, rights, proxies, CA, disk and clock.

    Each line has a verdict, and what to do unless all is well. Exits with 3 if something fails.
    """
    found: list[Diagnosis] = []
    for each in _diagnoses(matrix):
        found.append(each)
        if not as_json:
            print_result(look.diagnosis_line(each))
    if as_json:
        click.echo(json.dumps(look.diagnoses_json(found), indent=2))
    if any(each.verdict == "failed" for each in found):
        sys.exit(EngineError.exit_code)


def _diagnoses(matrix: Path | None) -> Iterator[Diagnosis]:
    """The project, and what its matrix needs; without a project that can be read, what the built-in matrix needs."""
    try:
        read, mirrors = read_cells(Request(matrix=matrix))
        yield Diagnosis(subject="project", verdict="ok", found=f"{read.source}: {counted(len(read.cells), 'cell')}")
    except BuilderError as error:
        yield Diagnosis(subject="project", verdict="warning", found=error.what, remedy=error.hint)
        read, mirrors = (
            built_in_matrix(f"3.{NEWEST_PYTHON}"),
            mirrors_of_environment(),
        )
    yield from diagnose(read, mirrors)
