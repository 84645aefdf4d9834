"""A matrix for a project that has none, from the images, Pythons and system packages of its pipeline."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from builder.gitlab.adopt.image import PythonImage, parse_image
from builder.gitlab.adopt.installed import installed_extras, installed_groups, tools_run
from builder.gitlab.adopt.job import Job, expand
from builder.gitlab.adopt.lock import find_project_lock
from builder.gitlab.adopt.package import installed_packages, needs_of
from builder.gitlab.adopt.program import read_inside, uses_below
from builder.matrix.facts import GLIBC, NEWEST_PYTHON, OLDEST_PYTHON
from builder.matrix.file import built_in_matrix

_OFFICIAL: Final = "docker.io/library/python"
_DEFAULT: Final = built_in_matrix(f"3.{NEWEST_PYTHON}").cells[0]
# A job that adds a package source may install from it what the distribution does not have.
_OTHER_SOURCES: Final = re.compile(r"add-apt-repository|apt-key|sources\.list|nodesource|\|\s*(?:sudo )?(?:ba)?sh\b")
_PACKAGE: Final = re.compile(r"(?!python)[a-z0-9][a-z0-9+.-]+")  # another Python would only be in the way
_EVERY_MEMBER: Final = re.compile(r"\buv (?:sync|run)\b.*--all-packages\b")
_FROM_PROJECT: Final = re.compile(
    r"pip3? install\b.*\s(?:-r|--requirement|-e|--editable|[\"']?\.)|\buv (?:sync|run|pip|add)\b"
    r"|\bsetup\.py (?:develop|install|test)\b"
    r"|requirements|\b(?:poetry|pdm|pipenv|rye|hatch|tox|nox|pytest|pre-commit)\b"
)


@dataclass(frozen=True, kw_only=True)
class WantedCell:
    """A cell that a job wants: `base` is the name of the base, `source` the image of Python without its tag."""

    python: str
    base: str
    source: str = _OFFICIAL


@dataclass(frozen=True, kw_only=True)
class WantedCells:
    """The cells that a project's jobs want, and the system packages of each base."""

    cells: tuple[WantedCell, ...]
    packages: Mapping[str, Set[str]]


def propose_matrix(jobs: Collection[Job], others: Collection[Job], folder: Path | None) -> str:
    """The text of a matrix with a cell for each Python image of these jobs; '' if builder can bake none of them.

    The others are those that can run on the same cells, which have the system packages that they need.
    """
    wanted = wanted_cells(jobs, folder, others)
    head = (
        "# Proposed by `builder ci adopt`: an image for each Python on each base. docs/matrix.md of builder has more."
    )
    scripts = [line.scalar.value for job in (*jobs, *others) for line in job.lines]
    tools = [f"tools = {json.dumps(names)}"] if (names := tools_run(scripts)) else []
    lines = [head, *axes_lines(wanted), *tools, *_install_lines(jobs, folder), *bases_lines(wanted)]
    return "\n".join(lines) + "\n" if wanted.cells else ""


def wanted_cells(jobs: Iterable[Job], folder: Path | None, others: Iterable[Job] = ()) -> WantedCells:
    """The cell of each Python image of these jobs that builder can bake.

    The base of a full image is slim, with the packages that the jobs need, and others that can run on the same cells.
    """
    images = {job: list(_images(job)) for job in jobs}
    more = [(job, image) for job in others for image in _images(job)]
    release = _usual_release(image for found in images.values() for image in found)
    wanted: dict[WantedCell, None] = {}
    packages: defaultdict[str, set[str]] = defaultdict(set)
    for job, found in images.items():
        for image in found:
            cell = cell_for(image, release, project_python(folder))
            if is_bakeable(cell):
                wanted[cell] = None
                packages[cell.base] |= set(_packages(job, image, folder))
    for job, image in more:
        if (cell := cell_for(image, release, project_python(folder))) in wanted:
            packages[cell.base] |= set(_packages(job, image, folder))
    return WantedCells(cells=tuple(wanted), packages=packages)


def works_on_project(job: Job, folder: Path | None) -> bool:
    """Whether a job works on a Python project; otherwise it only installs tools, which are in no lock."""
    return any(_FROM_PROJECT.search(use.command) for line in job.lines for use in uses_below(line.scalar.value, folder))


def _install_lines(jobs: Iterable[Job], folder: Path | None) -> list[str]:
    """The lines of a matrix that say what of a uv.lock the jobs install besides the project's own dependencies."""
    if folder is None or not find_project_lock(folder).path.endswith("uv.lock"):
        return []
    scripts = [line.scalar.value for job in jobs for line in job.lines]
    groups, extras = installed_groups(folder, scripts), installed_extras(folder, scripts)
    members = "all" if any(_EVERY_MEMBER.search(script) for script in scripts) else ""
    chosen = {"groups": groups.names, "extras": extras.names, "packages": members}
    lines = [f"{key} = {json.dumps(names)}" for key, names in chosen.items() if names]
    return ["", "[install]", *lines] if lines else []


def leaves_python_open(job: Job) -> bool:
    """Whether a job runs on an image such as `python:latest`, whose name has no version."""
    return any(not image.python for image in _images(job))


def project_python(folder: Path | None) -> str:
    """The Python of a project: that of `.python-version`, else the newest that `requires-python` allows."""
    pin = re.match(r"\s*(?:cpython[-@])?(3\.\d+)", read_inside(folder / ".python-version", folder) if folder else "")
    if pin:
        return pin[1]
    allowed = required_python(folder)
    minors = (f"3.{minor}" for minor in range(NEWEST_PYTHON, OLDEST_PYTHON - 1, -1))
    return next((python for python in minors if allowed.contains(f"{python}.99")), f"3.{NEWEST_PYTHON}")


def required_python(folder: Path | None) -> SpecifierSet:
    """The `requires-python` of a project; what everything meets if there is none, or none that can be read."""
    text = read_inside(folder / "pyproject.toml", folder) if folder else ""
    required = re.search(r"^(?:requires-)?python\s*=\s*[\"']([^\"'^~]*)[\"']", text, re.MULTILINE)
    try:
        return SpecifierSet(required[1] if required else "")
    except InvalidSpecifier:
        return SpecifierSet()


def _images(job: Job) -> Iterator[PythonImage]:
    """The Python images that a job can run on."""
    for variables in job.variable_sets if job.image else ():
        image = parse_image(expand(job.image.value, variables), None) if job.image else None
        if isinstance(image, PythonImage):
            yield image


def _usual_release(images: Iterable[PythonImage]) -> str:
    """The Debian release for images that name none: the only one that others name; '' for whatever is current."""
    named = {release for image in images if image.family == "debian" for release in image.releases}
    return named.pop() if len(named) == 1 else ""


def cell_for(image: PythonImage, release: str, python: str) -> WantedCell:
    """The cell in place of an image; `release` and `python` are for an image that names none."""
    base = "alpine" if image.family == "alpine" else f"{next(iter(image.releases), release)}-slim".removeprefix("-")
    return WantedCell(python=image.python or python, base=base, source=image.source or _OFFICIAL)


def is_bakeable(cell: WantedCell) -> bool:
    """Whether uv supports this Python, and builder knows what runs on this base."""
    minor = Version(cell.python).minor
    return OLDEST_PYTHON <= minor <= NEWEST_PYTHON and cell.base.split("-")[0] in {"alpine", "slim", *GLIBC}


def _packages(job: Job, image: PythonImage, folder: Path | None) -> Iterator[str]:
    """What a job needs of a full image, and the distribution's packages that it installs itself."""
    if image.is_full:
        yield from (need.package for need in needs_of(job, folder))
    if not any(_OTHER_SOURCES.search(line.scalar.value) for line in job.lines):
        yield from (name for name in installed_packages(job, image.family) if _PACKAGE.fullmatch(name))


def axes_lines(wanted: WantedCells) -> list[str]:
    """The lines of a matrix with its two axes, and the combinations that nobody wants."""
    pythons = sorted({cell.python for cell in wanted.cells}, key=Version)
    bases = _bases(wanted)
    cells = {(cell.python, cell.base) for cell in wanted.cells}
    missing = [(python, base) for python in pythons for base in bases if (python, base) not in cells]
    lines = [f"python = {json.dumps(pythons)}", f"base = {json.dumps(bases)}"]
    if missing:
        pairs = [f'    {{ python = "{python}", base = "{base}" }},' for python, base in missing]
        lines += ["exclude = [", *pairs, "]"]
    return lines


def bases_lines(wanted: WantedCells) -> list[str]:
    """The lines of a matrix that define its bases."""
    lines = []
    for base in _bases(wanted):
        source = next(cell.source for cell in wanted.cells if cell.base == base)
        variant = "-".join(reversed(base.split("-")))
        family = "alpine" if base == "alpine" else "debian"
        lines += ["", f"[bases.{base}]", f'image = "{source}:{{python}}-{variant}"', f'family = "{family}"']
        if base == "slim":  # the oldest release that such a tag may still name
            lines += [f'libc = "{_DEFAULT.libc}"']
        if wanted.packages.get(base):
            lines += [f"packages = {json.dumps(sorted(wanted.packages[base]))}"]
    return lines


def _bases(wanted: WantedCells) -> list[str]:
    return list(dict.fromkeys(cell.base for cell in wanted.cells))
