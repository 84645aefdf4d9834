"""Reports what a run is about, and its outcome: its result on stdout, notes and errors on stderr, and its exit code."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import click

from builder.cli.output import json as documents
from builder.cli.output import text
from builder.cli.output.messages import print_error, print_note, print_result
from builder.cli.verbosity import is_quiet
from builder.errors import BuildError, VerifyError, counted
from builder.lock.preflight import preflight, preflight_error
from builder.oci.reference import ImageRef
from builder.publication import Publication
from builder.request import Project, Request, read_project


def read_noted_project(request: Request) -> Project:
    """Read the files of the request, and print on stderr what builder chose in them."""
    project = read_project(request)
    for note in project.notes if not is_quiet() else ():
        print_note(f"builder: {note}")
    return project


def check_project(request: Request) -> None:
    """Raise LockError if the lock is outdated, or a cell cannot be built from it; ask no registry and build nothing."""
    project = read_noted_project(replace(request, locked=True))
    if error := preflight_error(preflight(project.locked_cells)):
        raise error


def report_dry_run(done: Publication, repository: ImageRef, *, as_json: bool, pushed: bool) -> None:
    """Print what a run would build, push and move."""
    if as_json:
        click.echo(json.dumps(documents.build_json(done), indent=2))
    else:
        print_result(text.dry_run_table(done, repository, pushed=pushed))


def report(done: Publication, *, as_json: bool, pushed: bool) -> None:
    """Print the result and the errors; if there are any, exit with 1 for a build or check, else the highest code."""
    if as_json:
        click.echo(json.dumps(documents.build_json(done), indent=2))
    else:
        good = [result for result in done.results if result.error is None]
        for tag in dict.fromkeys(result.handed_over or result.rendered.moving_tags[0] for result in good):
            click.echo(tag.familiar)
    for line in text.promotion_lines(done) if pushed else ():
        print_note(line)
    errors = [result.error for result in done.results if result.error]
    for error in errors:
        print_error(error)
    if errors:
        whose = "its" if len(errors) == 1 else "their"
        cells = counted(len(done.results), "cell")
        print_note(f"builder: {len(errors)} of {cells} failed; {whose} moving tags are unchanged")
        codes = {error.exit_code for error in errors}
        sys.exit(1 if codes & {BuildError.exit_code, VerifyError.exit_code} else max(codes))
