"""What the files of a project say about the images that its jobs need: GitHub's workflows, and Dockerfiles."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from builder.gitlab.adopt.image import PythonImage, parse_image
from builder.gitlab.adopt.job import expand
from builder.gitlab.adopt.program import read_inside

_VERSION: Final = re.compile(r"3\.[0-9]{1,2}(?:\.[0-9]{1,3})?")
_FROM_MATRIX: Final = re.compile(r"\$\{\{\s*matrix\.([\w-]+)\s*\}\}")
_DOCKERFILES: Final = ("Dockerfile", "Containerfile", "docker/Dockerfile", ".devcontainer/Dockerfile")
_INSTRUCTION: Final = re.compile(r"\s*(?P<name>FROM|ARG|RUN)\s+(?:--\S+\s+)*(?P<rest>.*)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Clues:
    """What a file says: Python versions such as 3.12, images with Python, and the scripts that it runs."""

    source: str
    pythons: tuple[str, ...] = ()
    images: tuple[PythonImage, ...] = ()
    scripts: tuple[str, ...] = ()


def read_workflows(folder: Path) -> tuple[Clues, ...]:
    """What GitHub's workflows say, by the file's name; a file that is no workflow says nothing."""
    found = []
    for path in sorted((folder / ".github/workflows").glob("*.y*ml")):
        try:
            # The base loader leaves every value a text: 3.10 is no number here.
            table = yaml.load(read_inside(path, folder), Loader=yaml.BaseLoader)  # noqa: S506
        except yaml.YAMLError:
            continue
        jobs = _table(_table(table).get("jobs")).values()
        parts = [_job_clues(_table(job)) for job in jobs]
        found.append(_joined(path.relative_to(folder).as_posix(), parts))
    return tuple(found)


def _job_clues(job: Mapping[str, Any]) -> Clues:
    axes = _axes(_table(_table(job.get("strategy")).get("matrix")))
    steps = [_table(step) for step in _list(job.get("steps"))]
    named = [str(_table(step.get("with")).get("python-version", "")) for step in steps]
    pythons = [value for name, values in axes.items() if "python" in name.lower() for value in values]
    pythons += [word for text in named for word in text.split()]
    container = job.get("container")
    image = str(container if isinstance(container, str) else _table(container).get("image", ""))
    return Clues(
        source="",
        pythons=tuple(python for python in pythons if _VERSION.fullmatch(python)),
        images=tuple(_parsed(_filled(image, axes))),
        scripts=tuple(str(step["run"]) for step in steps if "run" in step),
    )


def _axes(matrix: Mapping[str, Any]) -> dict[str, list[str]]:
    """The values of each axis of a strategy's matrix, and of what it includes."""
    axes = {
        name: list(map(str, _list(values))) for name, values in matrix.items() if name not in {"include", "exclude"}
    }
    for more in _list(matrix.get("include")):
        for name, value in _table(more).items():
            axes.setdefault(name, []).append(str(value))
    return axes


def _filled(image: str, axes: Mapping[str, Sequence[str]]) -> list[str]:
    """The image with each value of the axis that its name has."""
    match = _FROM_MATRIX.search(image)
    if not match:
        return [image]
    return [image.replace(match[0], value) for value in axes.get(match[1], ())]


def read_dockerfile(folder: Path) -> Clues | None:
    """What the project's Dockerfile says; None if there is none."""
    name = next((name for name in _DOCKERFILES if (folder / name).is_file()), None)
    if name is None:
        return None
    variables: dict[str, str] = {}
    images, scripts = [], []
    for line in re.sub(r"\\\r?\n", " ", read_inside(folder / name, folder)).splitlines():
        match = _INSTRUCTION.match(line)
        if not match:
            continue
        if match["name"].upper() == "ARG":
            variable, _, value = match["rest"].strip().partition("=")
            variables[variable] = value.strip("\"'")
        elif match["name"].upper() == "FROM":
            images.append(expand(match["rest"].split()[0], variables))
        else:
            scripts.append(match["rest"])
    parsed = tuple(_parsed(images))
    pythons = tuple(image.python for image in parsed if image.python)
    return Clues(source=name, pythons=pythons, images=parsed, scripts=tuple(scripts))


def _parsed(images: Sequence[str]) -> Iterator[PythonImage]:
    for text in images:
        image = parse_image(text, None) if text else None
        if isinstance(image, PythonImage):
            yield image


def _joined(source: str, parts: Sequence[Clues]) -> Clues:
    return Clues(
        source=source,
        pythons=tuple(dict.fromkeys(python for part in parts for python in part.pythons)),
        images=tuple(dict.fromkeys(image for part in parts for image in part.images)),
        scripts=tuple(script for part in parts for script in part.scripts),
    )


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else []
