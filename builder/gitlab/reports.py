"""The files of `--reports DIR`, and the keyword with which a GitLab job hands them on."""

from __future__ import annotations

from typing import Any, Final

FOLDER_NAME: Final = "prebuilt-reports"  # in the checkout, for the jobs of the component
JUNIT_NAME: Final = "junit.xml"
CODE_QUALITY_NAME: Final = "gl-code-quality-report.json"
METRICS_NAME: Final = "metrics.txt"
ANNOTATIONS_NAME: Final = "annotations.json"
SUMMARY_NAME: Final = "summary.md"
PAGES_NAME: Final = "report"  # a folder, with the pages of `builder report`
SBOM_ENDING: Final = ".cdx.json"  # after the cell's name


def report_artifacts(folder: str) -> dict[str, Any]:
    """`artifacts:` of a job that writes reports to the folder: kept if the job fails too."""
    return {
        "when": "always",
        "expose_as": "Images",
        "paths": [f"{folder}/"],
        "reports": {
            "junit": f"{folder}/{JUNIT_NAME}",
            "codequality": f"{folder}/{CODE_QUALITY_NAME}",
            "metrics": f"{folder}/{METRICS_NAME}",
            "annotations": f"{folder}/{ANNOTATIONS_NAME}",
            "cyclonedx": f"{folder}/*{SBOM_ENDING}",
        },
        "expire_in": "4 weeks",
    }
