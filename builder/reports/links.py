"""Links from a job to its images and reports, as GitLab's annotations.

The format: https://docs.gitlab.com/ci/yaml/artifacts_reports/#artifactsreportsannotations
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from builder.gitlab.reports import PAGES_NAME, SUMMARY_NAME
from builder.reports.facts import CellFacts


def annotations_json(facts: Sequence[CellFacts], folder: str, variables: Mapping[str, str]) -> dict[str, Any]:
    """Links by subject; `variables` are GitLab's, `folder` is that of the reports in the checkout.

    There is a link for what the variables give an address for: the job's files, and the project's registry.
    """
    job, project = variables.get("CI_JOB_URL", ""), variables.get("CI_PROJECT_URL", "")
    own = variables.get("CI_REGISTRY_IMAGE", "")
    links = []
    if job:
        links.append(_link("What was built, and what changed", f"{job}/artifacts/file/{folder}/{SUMMARY_NAME}"))
        if any(each.result.published for each in facts):
            links.append(_link("The report on all images", f"{job}/artifacts/file/{folder}/{PAGES_NAME}/index.html"))
    if project and own:
        links += [
            _link(f"{each.name}: {each.image.tag}", f"{project}/container_registry?search[]={each.image.tag}")
            for each in facts
            if each.image and f"{each.image.name}/".startswith(f"{own}/")
        ]
    return {"Images": links} if links else {}


def _link(label: str, url: str) -> dict[str, Any]:
    return {"external_link": {"label": label, "url": url}}
