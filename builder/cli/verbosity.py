"""-v and -q, which work before and after a command's name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import click

from builder.cli.output.messages import print_note, printable

_Command = TypeVar("_Command", bound=Callable[..., Any])
_QUIET = "builder.quiet"
_VERBOSE = "builder.verbose"
_RETRIES = "builder.retries"  # see builder.oci.transport
_LOCKS = "packaging.pylock"  # what the library says about locks of a later standard


def verbosity(command: _Command) -> _Command:
    """Add -v and -q to a command."""
    for option in (
        click.option("-q", "--quiet", is_flag=True, expose_value=False, callback=_set_quiet,
                     help="Show only the result and errors."),
        click.option("-v", "--verbose", is_flag=True, expose_value=False, callback=_set_verbose,
                     help="Show more, and every command that builder runs."),
    ):  # fmt: skip
        command = option(command)
    return command


def is_quiet() -> bool:
    """Whether -q was given, before or after the command's name."""
    return bool(click.get_current_context().meta.get(_QUIET))


def is_verbose() -> bool:
    """Whether -v was given, before or after the command's name."""
    return bool(click.get_current_context().meta.get(_VERBOSE))


class _Notes(logging.Handler):
    """Prints what a run waits for."""

    def emit(self, record: logging.LogRecord) -> None:
        print_note(f"builder: {record.getMessage()}")


def show_retries() -> None:
    """Print each retry of a registry, so that nobody takes waiting for hanging, and what libraries warn of.

    Not with -q.
    """
    for name in (_RETRIES, _LOCKS):
        notes = logging.getLogger(name)
        notes.propagate = False
        notes.handlers = [_Notes()]
        notes.setLevel(logging.WARNING)


class _Printable(logging.Formatter):
    """Formats a record as what may go to the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _set_quiet(context: click.Context, _: click.Parameter, flag: bool) -> None:
    context.meta[_QUIET] = context.meta.get(_QUIET, False) or flag
    if flag:
        for name in (_RETRIES, _LOCKS):
            logging.getLogger(name).setLevel(logging.ERROR)


def _set_verbose(context: click.Context, _: click.Parameter, flag: bool) -> None:
    if flag:
        context.meta[_VERBOSE] = True
        handler = logging.StreamHandler()
        handler.setFormatter(_Printable())
        logging.basicConfig(handlers=[handler])
        logging.getLogger("builder").setLevel(logging.DEBUG)
