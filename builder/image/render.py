"""Renders an `ImagePlan` to a `RenderedImage`: the files of the build context, and the key, which is their hash.

The templates are in `dockerfiles/`. A context depends on nothing but the plan: not on the machine, the time or the
mirrors in use. So the same plan renders to the same bytes everywhere.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import tomli_w
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from builder.contract import CA_SECRET, CACHE, KEY_LENGTH, LABELS, NETRC_SECRET, SECRETS, SELECTION, VENV
from builder.errors import BuilderError, UsageError
from builder.image.plan import ImagePlan
from builder.lock.model import BuildSystem, SelectedPackage, Selection
from builder.oci.reference import ImageRef


@dataclass(frozen=True, kw_only=True)
class RenderedImage:
    """A build context: pairs of relative path and content, sorted by path; `key` is the SHA-256 of them all."""

    plan: ImagePlan
    files: tuple[tuple[str, bytes], ...]
    key: str

    @property
    def immutable_tag(self) -> ImageRef:
        """The tag that never moves: `<python>-<base>-<first digits of the key>`."""
        return self.plan.repository.with_tag(f"{self.plan.cell.name}-{self.key[:KEY_LENGTH]}")

    @property
    def moving_tags(self) -> tuple[ImageRef, ...]:
        """The tags that jobs use: `<python>-<base>` and the cell's aliases."""
        return tuple(self.plan.repository.with_tag(tag) for tag in self.plan.moving_tags)

    @property
    def tags(self) -> tuple[ImageRef, ...]:
        """All tags, the immutable one first."""
        return (self.immutable_tag, *self.moving_tags)

    def write(self, directory: Path) -> None:
        """Write the context to a new or empty folder."""
        for name, content in self.files:
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def replace(self, directory: Path) -> None:
        """Write the context to a folder, replacing one from an earlier run; raise UsageError if that fails."""
        fresh = directory.with_name(f".{directory.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            fresh.mkdir(parents=True)
            self.write(fresh)
            shutil.rmtree(directory, ignore_errors=True)
            fresh.rename(directory)
        except OSError as error:
            raise UsageError(
                f"cannot write to {directory}: {error.strerror}", hint="name another folder with -o"
            ) from error


def render(plan: ImagePlan) -> RenderedImage:
    """Render the build context of a plan; the same plan always gives the same bytes."""
    files = {"Dockerfile": _dockerfile(plan).encode(), "prebuilt-status": _status_script(plan).encode()}
    files["pylock.toml"] = _pylock(plan.selection)
    for number, system in enumerate(plan.selection.build_systems):
        files |= _build_system(f"build-system-{number}", system)
    if plan.selection.uv_settings:
        files["uv.toml"] = tomli_w.dumps(plan.selection.uv_settings).encode()
    if plan.selection.build_systems:
        files["requires.py"] = (_template_folder() / "requires.py").read_bytes()
    ordered = tuple(sorted(files.items()))
    return RenderedImage(plan=plan, files=ordered, key=_key(ordered))


def _key(files: tuple[tuple[str, bytes], ...]) -> str:
    hashed = hashlib.sha256()
    for name, content in files:
        hashed.update(f"{name}\0{len(content)}\0".encode())
        hashed.update(content)
    return hashed.hexdigest()


def _pylock(selection: Selection) -> bytes:
    packages = [_pylock_package(package) for package in selection.packages]
    table = {"lock-version": "1.0", "created-by": "builder", "packages": packages}
    return tomli_w.dumps(table).encode()


def _pylock_package(package: SelectedPackage) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": package.name}
    if package.version:
        entry["version"] = package.version
    if package.index:
        entry["index"] = package.index
    source = dict(package.source)
    if package.artifact == "wheel":
        entry["wheels"] = [source]
    else:
        entry[package.artifact] = source
    return entry


def _build_system(folder: str, system: BuildSystem) -> dict[str, bytes]:
    """The files with which the build fills the cache for a build system, without the project's sources."""
    pyproject = {
        "build-system": {"requires": list(system.requires), "build-backend": system.backend or "in-tree"},
        "project": {"name": "build-requirements", "version": "0"},
    }
    return {
        f"{folder}/pyproject.toml": tomli_w.dumps(pyproject).encode(),
        f"{folder}/requires.txt": "".join(f"{line}\n" for line in system.requires).encode(),
        f"{folder}/constraints.txt": "".join(f"{line}\n" for line in system.constraints).encode(),
    }


def _dockerfile(plan: ImagePlan) -> str:
    template = _templates().get_template(f"{plan.cell.family}.Dockerfile.j2")
    return template.render(
        plan=plan,
        cell=plan.cell,
        labels=LABELS,
        venv=VENV,
        cache=CACHE,
        selection=SELECTION,
        ca=f"{SECRETS}/{CA_SECRET}",
        ca_secret=CA_SECRET,
        netrc=f"{SECRETS}/{NETRC_SECRET}",
        netrc_secret=NETRC_SECRET,
        sources=[package.name for package in plan.selection.packages if package.artifact != "wheel"],
    )


def _status_script(plan: ImagePlan) -> str:
    template = _templates().get_template("prebuilt-status.j2")
    return template.render(plan=plan, cell=plan.cell, selection=SELECTION)


@lru_cache(maxsize=1)
def template_digest() -> str:
    """The first digits of a SHA-256 over all templates and the scripts that are copied into contexts."""
    hashed = hashlib.sha256()
    for path in [*sorted(_template_folder().glob("*.j2")), _template_folder() / "requires.py"]:
        hashed.update(path.name.encode() + b"\0" + path.read_bytes())
    return hashed.hexdigest()[:KEY_LENGTH]


def _template_folder() -> Path:
    package = Path(__file__).parent.parent
    packaged, checkout = package / "dockerfiles", package.parent / "dockerfiles"
    return packaged if packaged.is_dir() else checkout


@lru_cache(maxsize=1)
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_template_folder()),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - a Dockerfile is not HTML; every value goes through a filter below
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["sh"] = shell_quoted
    environment.filters["env"] = dockerfile_quoted
    return environment


def shell_quoted(value: object) -> str:
    """Quote a value as one word of a POSIX shell, for a line of a Dockerfile's RUN."""
    text = str(value)
    _refuse_line_breaks(text)
    return shlex.quote(text)


def dockerfile_quoted(value: object) -> str:
    """Quote a value as one double-quoted word of LABEL or ENV, without variable expansion."""
    text = str(value)
    _refuse_line_breaks(text)
    return json.dumps(text, ensure_ascii=False).replace("$", "\\$")


def _refuse_line_breaks(text: str) -> None:
    # The parsers reject them already; here one would begin a new instruction.
    if any(character in text for character in "\r\n\0"):
        raise BuilderError(f"{text!r} cannot be written to a Dockerfile: it contains a line break")
