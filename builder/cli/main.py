"""The command `builder`: its table of commands, and its exit codes."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Final, NoReturn

import click

import builder
from builder.cli.lazy import Lazy, LazyGroup
from builder.cli.output.messages import print_error
from builder.cli.verbosity import show_retries, verbosity
from builder.disk import failure_text
from builder.errors import BuilderError, CommandError, InterruptedRun

COMMANDS: Final = {
    name: Lazy(target=f"builder.cli.{module}:{name}_command", summary=summary)
    for name, module, summary in (
        ("init", "init", "Write a first matrix.toml for this project."),
        ("plan", "build", "Show what would be built, and why."),
        ("render", "build", "Write each cell's Dockerfile and build context."),
        ("build", "build", "Build, verify and tag an image for each cell."),
        ("run", "job", "Run a command on an image as a CI job would."),
        ("shell", "job", "Open a shell where a CI job would run."),
        ("verify", "inspect", "Check that IMAGE works as a CI job image."),
        ("push", "release", "Push images that were built and verified earlier."),
        ("promote", "release", "Move the tags that jobs use to images in the registry."),
        ("rollback", "release", "Undo the latest promotion."),
        ("prune", "release", "Delete immutable tags that nothing uses."),
        ("diff", "inspect", "Compare two images, or an image with the plan."),
        ("ls", "look", "List the images in the registry."),
        ("show", "look", "Show what is in an image, and what takes the space."),
        ("doctor", "look", "Check that builder can work here."),
        ("report", "pages", "Write static pages about the images."),
        ("ci", "ci", "Write GitLab jobs and pipelines; adapt an existing one."),
        ("schema", "inspect", "Print the JSON Schema of matrix.toml."),
        ("completion", "inspect", "Print the completion script of a shell."),
    )
}


def _print_version(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(f"builder, version {builder.__version__}")
        context.exit()


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 success; 1 a build or a check failed; 2 usage or configuration; "
    "3 environment, credentials or network; 4 published in part, or in conflict; 130 interrupted.",
)
@verbosity
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
def cli() -> None:
    """Bake a project's locked dependencies into the images that its CI jobs run on.

    \b
    Begin with a project:               builder init
    See what would be built:            builder plan --lock uv.lock
    Build and verify on this machine:   builder build --lock uv.lock
    Write the Dockerfiles:              builder render --lock uv.lock -o contexts/

    Without a matrix.toml, builder makes one image: the Python of .python-version, or the newest
    that the lock supports, on Debian bookworm.
    """  # noqa: D301 - click takes the character, not the backslash


def main() -> NoReturn:
    """Run the command line, and exit with a code from errors.py."""
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it warns about each retry
    show_retries()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        cli.main(
            prog_name=Path(sys.argv[0]).name if sys.argv[0].endswith("prebuilt") else "builder", standalone_mode=False
        )
    except (click.exceptions.Abort, KeyboardInterrupt):
        _end(InterruptedRun("interrupted"))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BuilderError as error:
        _end(error)
    except BrokenPipeError:
        # The reader of our output, such as `head`, has closed it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        _end(CommandError(failure_text(error)))
    sys.exit(0)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _end(error: BuilderError) -> NoReturn:
    print_error(error)
    sys.exit(error.exit_code)
