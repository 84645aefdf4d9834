"""Messages on stderr, with secrets redacted."""

from __future__ import annotations

import sys

from builder.process import redact


def print_error(error: BaseException) -> None:
    """Print an error to stderr, with secrets redacted."""
    print(f"builder: {redact(str(error))}", file=sys.stderr)  # noqa: T201


def print_note(text: str) -> None:
    """Print a line to stderr, with secrets redacted."""
    print(redact(text), file=sys.stderr)  # noqa: T201
