"""What can go wrong, by stage. The exit code of each says which kind of fault it is.

1 a build or a check failed; 2 usage or configuration; 3 environment, credentials or network;
4 published in part or in conflict; 130 interrupted.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class BuilderError(Exception):
    """What went wrong, where, and what to do instead; `str()` is what the terminal shows."""

    exit_code = 1

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\n  {self.hint}" if self.hint else self.what


class UsageError(BuilderError):
    """The command line asks for something that is not there."""

    exit_code = 2


class MatrixError(BuilderError):
    """`matrix.toml` does not say what it must; all its faults are in the one message."""

    exit_code = 2


class LockError(BuilderError):
    """The lock file cannot be read, or does not cover a cell."""

    exit_code = 2


class GitLabFileError(BuilderError):
    """A `.gitlab-ci.yml` cannot be read."""

    exit_code = 2


class CommandError(BuilderError):
    """A program could not be started, or ended with an error that no stage has a better name for."""

    exit_code = 3


class RegistryError(BuilderError):
    """A registry or package index cannot be reached, refuses, or does not have what was asked for."""

    exit_code = 3


class EngineError(BuilderError):
    """The Docker engine or buildx is missing, not running, too old, or not ours to use."""

    exit_code = 3


class BuildError(BuilderError):
    """An image could not be built."""

    exit_code = 1


class VerifyError(BuilderError):
    """An image does not keep the contract."""

    exit_code = 1


class PublishError(BuilderError):
    """Tags stand in part, or somebody else moved one."""

    exit_code = 4


class InterruptedRun(BuilderError):  # noqa: N818 - it is no error, it is asked for
    """Stopped by a signal; what had been started is stopped too."""

    exit_code = 130


def near(word: str, known: Iterable[str]) -> str:
    """Return ' (perhaps you meant …?)' for a word that resembles a known one, else ''."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (perhaps you meant {close[0]!r}?)" if close else ""


def listed(words: Sequence[str], *, most: int = 8) -> str:
    """Return the words in one line, cut after `most` of them with the number left out."""
    shown = ", ".join(words[:most])
    return f"{shown} and {len(words) - most} more" if len(words) > most else shown
