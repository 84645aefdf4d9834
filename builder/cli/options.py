"""Options that several commands share, which they get as a `Request`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import click

from builder.cli.verbosity import verbosity
from builder.request import Request

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Parameters = ParamSpec("_Parameters")

PATH = click.Path(path_type=Path, readable=False)  # the readers report errors in more detail

matrix_option = click.option(
    "-f",
    "--file",
    "matrix",
    type=PATH,
    metavar="MATRIX",
    help="The matrix file.  [default: the nearest matrix.toml, here or above]",
)
lock_option = click.option(
    "--lock",
    type=PATH,
    metavar="LOCK",
    help="A uv.lock, pylock.toml, hash-pinned requirements.txt, or a script's tool.py.lock.  "
    "[default: the nearest, here or above]",
)
branch_option = click.option(
    "--branch",
    metavar="NAME",
    help="Use the tags of a branch, such as 3.13-alpine-NAME, instead of those that every job uses.",
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Show what would be built, pushed and moved; change nothing."
)
reports_option = click.option(
    "--reports",
    type=PATH,
    metavar="DIR",
    help="Write reports that GitLab shows to DIR: checks, links, packages without a wheel, sizes, bills of materials.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON (docs/json.md).")

_CELL_OPTIONS = (
    matrix_option,
    lock_option,
    click.option(
        "--only",
        multiple=True,
        metavar="AXIS=VALUE,…",
        help="Only these cells: python=3.13,base=alpine; or profile=lint. Repeatable.",
    ),
    click.option(
        "--platform",
        metavar="OS/ARCH",
        help="linux/amd64 or linux/arm64.  [default: the matrix's, or this machine's]",
    ),
    click.option(
        "--mirror",
        "mirrors",
        multiple=True,
        metavar="REGISTRY=MIRROR",
        help="Fetch one registry's images from another. Repeatable; also $BUILDER_MIRRORS.",
    ),
    branch_option,
    click.option(
        "--locked", is_flag=True, help="Fail if the lock is older than its pyproject.toml, instead of warning."
    ),
    click.option(
        "--package",
        "packages",
        multiple=True,
        metavar="NAME",
        help="Install what this workspace member depends on, instead of the root. Repeatable.",
    ),
    click.option("--all-packages", is_flag=True, help="Install what every workspace member depends on."),
    click.option(
        "--only-group",
        "only_groups",
        multiple=True,
        metavar="NAME",
        help="Install only this dependency group, without the project's own dependencies. Repeatable.",
    ),
)
_REQUEST = tuple(field.name for field in fields(Request))


def cell_options(command: Callable[Concatenate[Request, _Parameters], None]) -> Callable[..., None]:
    """Add the options that choose cells, matrix and lock; pass them to the command as one `Request`."""

    @functools.wraps(command)
    def with_request(**options: Any) -> None:
        request = Request(**{name: options.pop(name) for name in _REQUEST})
        command(request, **options)  # type: ignore[call-arg]

    return verbosity(_apply(_CELL_OPTIONS, with_request))


def _apply(options: tuple[Callable[[_Command], _Command], ...], command: _Command) -> _Command:
    for option in reversed(options):
        command = option(command)
    return command
