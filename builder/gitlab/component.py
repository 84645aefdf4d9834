"""The GitLab component as a file, and the lines that include it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import builder

COPY: Final = ".gitlab/prebuilt.yml"  # where a project keeps its copy
_RELEASE: Final = re.compile(r"\d+\.\d+\.\d+")
_ADDRESS: Final = re.compile(r"[^/]+/(?P<project>.+)/prebuilt@(?P<version>.+)")


def component_text() -> str:
    """The text of `templates/prebuilt.yml`: in the wheel inside of the package, in a checkout beside it."""
    package = Path(__file__).parents[1]
    packaged, checkout = package / "templates", package.parent / "templates"
    return ((packaged if packaged.is_dir() else checkout) / "prebuilt.yml").read_text(encoding="utf-8")


def include_lines(address: str, inputs: Mapping[str, str]) -> Sequence[str]:
    """An item of `include:`, without indentation: the component at an address, or with '' the project's own copy."""
    match = _ADDRESS.fullmatch(address)
    if address:
        first, image = f"- component: {address}", ""
        if match:
            image = f"$CI_REGISTRY/{match['project']}/cli:{match['version']}"
        own = {"image": image}
    else:
        first = f"- local: {COPY}"
        own = {"image": "python:3.13-slim", "before_script": _installing()}
    return [first, "  inputs:", *(f"    {name}: {value}" for name, value in {**own, **inputs}.items() if value)]


def _installing() -> str:
    """The line that installs builder in that image, as YAML; images are made there without an engine."""
    here = builder.__version__
    wanted = f"prebuilt=={here}" if _RELEASE.fullmatch(here) and here != "0.0.0" else "prebuilt"
    return f'["pip install {wanted}"]'
