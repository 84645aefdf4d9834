"""The errors that builder reports, one class per stage; the exit code tells the kind of fault.

1 a build or a check failed; 2 usage or configuration; 3 environment, credentials or network;
4 published in part, or in conflict; 130 interrupted.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class BuilderError(Exception):
    """An error: `what` went wrong, and where; `hint` says what to do. `str()` is what the terminal shows."""

    exit_code = 1

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\n  {self.hint}" if self.hint else self.what


class UsageError(BuilderError):
    """The command line or the environment asks for something that does not exist or cannot work."""

    exit_code = 2


class MatrixError(BuilderError):
    """`matrix.toml` is invalid; one message lists all its faults."""

    exit_code = 2


class LockError(BuilderError):
    """The lock file cannot be read, or does not cover a cell."""

    exit_code = 2


class GitLabFileError(BuilderError):
    """A `.gitlab-ci.yml` cannot be read."""

    exit_code = 2


class CommandError(BuilderError):
    """A program could not be started, or failed and no stage reports that more precisely."""

    exit_code = 3


class RegistryError(BuilderError):
    """A registry or package index cannot be reached, refuses, lacks something, or sends a malformed answer."""

    exit_code = 3


class EngineError(BuilderError):
    """The Docker engine or buildx is missing, not running, too old, not accessible, or sends a malformed answer."""

    exit_code = 3


class BuildError(BuilderError):
    """An image could not be built."""

    exit_code = 1


class VerifyError(BuilderError):
    """An image failed verification."""

    exit_code = 1


class PublishError(BuilderError):
    """Only some tags were moved, or somebody else moved one."""

    exit_code = 4


class InterruptedRun(BuilderError):  # noqa: N818 - not an error: somebody asked for it
    """A signal stopped the run; every process that it started is stopped too."""

    exit_code = 130


def near(word: str, known: Iterable[str]) -> str:
    """Return ' (perhaps you meant …?)' if the word resembles a known one, else an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (perhaps you meant {close[0]!r}?)" if close else ""


def counted(number: int, noun: str) -> str:
    """Return the number and the noun, in the plural unless there is one: `1 cell`, `3 cells`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(words: Sequence[str], *, most: int = 8) -> str:
    """Join the words with commas; after the first `most`, say only how many more there are."""
    shown = ", ".join(words[:most])
    return f"{shown} and {len(words) - most} more" if len(words) > most else shown
