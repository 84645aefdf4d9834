"""Writes the reports of a run: into the folder of `--reports`, and to GitHub where the run is one of its jobs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from builder.cli.output.messages import print_note
from builder.errors import RegistryError, UsageError
from builder.gitlab.reports import PAGES_NAME
from builder.image.render import RenderedImage
from builder.lock.preflight import preflight
from builder.oci.registry import Registries
from builder.pages.fetch import fetch_site
from builder.pages.render import render_pages, write_pages
from builder.publication import Publication
from builder.reports.code_quality import Problem, problems
from builder.reports.facts import fetch_facts
from builder.reports.folder import ReportFolder, shown_path
from builder.reports.github import commands
from builder.reports.summary import summary_markdown
from builder.request import Project

_PROMOTIONS: Final = 10  # in the pages


@dataclass(frozen=True, kw_only=True)
class RunReporter:
    """Where the reports of a run go: `start_reports` says whether there are any. `problems` are those of the lock."""

    project: Project
    folder: ReportFolder | None
    step_summary: str
    is_github: bool
    problems: tuple[Problem, ...]

    @classmethod
    def start(cls, project: Project, path: Path | None) -> RunReporter:
        """Write what is known before anything is planned, so that it is there if that fails."""
        folder = ReportFolder(path=path, variables=os.environ) if path else None
        is_github = os.environ.get("GITHUB_ACTIONS") == "true"
        summary = os.environ.get("GITHUB_STEP_SUMMARY", "")
        found = _problems(project)
        if folder:
            folder.write_problems(found)
        return cls(project=project, folder=folder, step_summary=summary, is_github=is_github, problems=found)

    def plan(self, rendered: Sequence[RenderedImage]) -> None:
        """Write what the plan tells."""
        if self.folder:
            self.folder.write_plan(rendered, self.project.locks)

    def end(self, done: Publication, registries: Registries) -> None:
        """Write everything that is known after the run."""
        facts = fetch_facts(done, registries)
        if self.folder:
            self.folder.write_run(facts, self.problems, self.project.locks)
            if any(result.published for result in done.results):
                self._write_pages(self.folder.path / PAGES_NAME, done, registries)
        if self.step_summary:
            _append(Path(self.step_summary), summary_markdown(facts, self.problems))
        for line in commands(facts, self.problems) if self.is_github else ():
            print_note(line)

    def _write_pages(self, folder: Path, done: Publication, registries: Registries) -> None:
        """Write the pages of `builder report`; if the registry fails now, only they are missing: the run is over."""
        now = datetime.now(timezone.utc).replace(microsecond=0)
        rendered = [result.rendered for result in done.results]
        try:
            site = fetch_site(rendered, registries, promotions=_PROMOTIONS, results=None, at=now)
        except RegistryError as error:
            print_note(f"builder: no report: {error}")
            return
        write_pages(render_pages(site), folder)


def _problems(project: Project) -> tuple[Problem, ...]:
    """The problems of all locks, one lock after the other."""
    found = preflight(project.locked_cells)
    paths = dict.fromkeys(checked.lock for checked in found.cells)
    return tuple(each for path in paths for each in problems(found.of(path), path, shown_path(path)))


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror}", hint="GITHUB_STEP_SUMMARY names it; unset it, or name a file"
        ) from error
