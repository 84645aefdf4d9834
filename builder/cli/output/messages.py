"""What goes to the terminal: without secrets, and without control characters, which could forge what is there."""

from __future__ import annotations

import re
import sys
from typing import Final

import click

from builder.redaction import redact

# Control characters but line feed and tab, and those that change the direction of text (Unicode TR 36).
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Return the text with secrets replaced by `***`, and control characters by their escapes."""
    return _CONTROLS.sub(lambda match: repr(match[0])[1:-1], redact(text.replace("\r\n", "\n")))


def print_error(error: BaseException) -> None:
    """Print an error to stderr."""
    print(f"builder: {printable(str(error))}", file=sys.stderr)  # noqa: T201


def print_note(text: str) -> None:
    """Print a line to stderr."""
    print(printable(text), file=sys.stderr)  # noqa: T201


def print_result(text: str) -> None:
    """Print a result to stdout."""
    click.echo(printable(text))


def print_file(text: str) -> None:
    """Print the text of a file to stdout: byte for byte, unless a terminal would obey what is in it."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()
