"""Writes the reports of a run into a folder, each file completely or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import UsageError
from builder.gitlab.adopt.include import top_folder
from builder.gitlab.reports import (
    ANNOTATIONS_NAME,
    CODE_QUALITY_NAME,
    JUNIT_NAME,
    METRICS_NAME,
    SBOM_ENDING,
    SUMMARY_NAME,
)
from builder.image.render import RenderedImage
from builder.lock.model import Lock
from builder.oci.reference import ImageRef
from builder.reports.code_quality import Problem
from builder.reports.facts import CellFacts
from builder.reports.junit import junit_xml
from builder.reports.links import annotations_json
from builder.reports.metrics import metrics_text
from builder.reports.sbom import cyclonedx_json
from builder.reports.summary import summary_markdown
from builder.whole_file import write_whole


@dataclass(frozen=True, kw_only=True)
class ReportFolder:
    """A folder for reports. `variables` are those of the environment, of which the links use GitLab's."""

    path: Path
    variables: Mapping[str, str]

    def write_problems(self, problems: Sequence[Problem]) -> None:
        """Write the Code Quality report, which needs only lock and matrix; raise UsageError if that is impossible."""
        self._write(CODE_QUALITY_NAME, _json([problem.table for problem in problems]))

    def write_plan(self, rendered: Sequence[RenderedImage], locks: Mapping[str, Lock]) -> None:
        """Write the bill of materials of each image that is planned; the locks are by profile."""
        for image in rendered:
            self._write_sbom(image, None, locks[image.plan.cell.profile])

    def write_run(self, facts: Sequence[CellFacts], problems: Sequence[Problem], locks: Mapping[str, Lock]) -> None:
        """Write everything that is known after a run; the locks are by profile."""
        for each in facts:
            self._write_sbom(each.rendered, each.image, locks[each.rendered.plan.cell.profile])
        self._write(JUNIT_NAME, junit_xml(facts))
        self._write(METRICS_NAME, metrics_text(facts))
        self._write(SUMMARY_NAME, summary_markdown(facts, problems))
        self._write(ANNOTATIONS_NAME, _json(annotations_json(facts, self._in_checkout, self.variables)))

    @property
    def _in_checkout(self) -> str:
        checkout = Path(self.variables.get("CI_PROJECT_DIR") or Path.cwd()).resolve()
        path = self.path.resolve()
        return path.relative_to(checkout).as_posix() if path.is_relative_to(checkout) else path.name

    def _write_sbom(self, rendered: RenderedImage, image: ImageRef | None, lock: Lock) -> None:
        table = cyclonedx_json(rendered, image, shown_path(lock.path))
        self._write(f"{rendered.plan.cell.name}{SBOM_ENDING}", _json(table))

    def _write(self, name: str, content: str | bytes) -> None:
        path = self.path / name
        try:
            write_whole(path, content)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}", hint="name another folder") from error


def shown_path(path: Path) -> str:
    """The path from the top of the repository, as GitLab and GitHub name files."""
    path = path.resolve()
    top = top_folder(path)
    return path.relative_to(top).as_posix() if path.is_relative_to(top) else path.name


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"
