"""Says where the reports of a run go, if anywhere: most runs write none, and need not load what writes them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from builder.image.render import RenderedImage
from builder.oci.registry import Registries
from builder.publication import Publication
from builder.request import Project


class Reporter(Protocol):
    """Writes the reports of a run."""

    def plan(self, rendered: Sequence[RenderedImage]) -> None:
        """Write what the plan tells."""

    def end(self, done: Publication, registries: Registries) -> None:
        """Write everything that is known after the run."""


class _Nobody:
    """Writes nothing. See `Reporter`."""

    def plan(self, rendered: Sequence[RenderedImage]) -> None:
        """See `Reporter.plan`."""

    def end(self, done: Publication, registries: Registries) -> None:
        """See `Reporter.end`."""


def start_reports(project: Project, path: Path | None) -> Reporter:
    """Write what is known before anything is planned, into the folder of `--reports` and to GitHub, if asked for."""
    is_github = os.environ.get("GITHUB_ACTIONS") == "true"
    if not (path or is_github or os.environ.get("GITHUB_STEP_SUMMARY")):
        return _Nobody()
    from builder.cli.reporting import RunReporter  # noqa: PLC0415 - loading it takes a twentieth of a second

    return RunReporter.start(project, path)
