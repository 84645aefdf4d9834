"""Lines on stderr, with nothing secret in them."""

from __future__ import annotations

import sys

from builder.process import redact


def print_error(error: BaseException) -> None:
    """Print an error to stderr: what, where, and what to do, and nothing secret."""
    print(f"builder: {redact(str(error))}", file=sys.stderr)  # noqa: T201


def print_note(text: str) -> None:
    """Tell a part of the story, on stderr."""
    print(redact(text), file=sys.stderr)  # noqa: T201
