"""`builder report`: static pages about a repository's images."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import click

from builder.cli.grouped import GroupedCommand
from builder.cli.options import PATH, cell_options
from builder.cli.report import read_noted_project
from builder.pages.fetch import fetch_site
from builder.pages.render import render_pages, write_pages
from builder.release.journal import GENERATIONS
from builder.request import Request, open_registries, require_repository
from builder.run import plan_images


@click.command("report", cls=GroupedCommand)
@cell_options
@click.option(
    "-o", "--output", type=PATH, required=True, metavar="DIR", help="Write the pages here; public/ for Pages."
)
@click.option(
    "--promotions",
    type=click.IntRange(0, GENERATIONS),
    default=10,
    show_default=True,
    help="Show this many promotions of the journal, with what each changed.",
)
@click.option(
    "--results", type=PATH, metavar="DIR", help="Results of jobs that verified images, as for `builder promote`."
)
def report_command(request: Request, *, output: Path, promotions: int, results: Path | None) -> None:
    """Write static pages: the matrix, what is in each image, its checks, the history of its tags, and what comes next.

    The pages need neither scripts nor other files nor a network: GitLab Pages, an artifact or a folder will do.
    """
    project = read_noted_project(request)
    require_repository("report on", project.matrix)
    registries = open_registries(project.matrix, project.mirrors)
    rendered = plan_images(project, registries)
    now = datetime.now(timezone.utc).replace(microsecond=0)
    site = fetch_site(rendered, registries, promotions=promotions, results=results, at=now)
    write_pages(render_pages(site), output)
    click.echo(str(output / "index.html"))
