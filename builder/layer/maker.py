"""Makers of layers: what they get, and what they give back.

A maker runs `make_layers.py` as root in the base image with uv at /usr/local/bin, with the request's folder at
/run/builder and the secrets at /run/secrets. If the Python comes from uv, its layer is unpacked over the base first. It
returns the tars that the program wrote.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from builder.image.render import RECIPE_NAME, template_bytes
from builder.layer.plan import Layer
from builder.layer.step import Step
from builder.matrix.interpreter import UvPython
from builder.matrix.model import Platform
from builder.oci.reference import ImageRef

RECIPE_FOLDER = "/run/builder"
PYTHON_TAR = "python.tar"  # in the request's folder: the layer with a Python from uv


@dataclass(frozen=True, kw_only=True)
class MakeRequest:
    """Steps to run on a base image, in `folder`. `base` and `uv` are pinned; `secrets` are files by id.

    `build_args` are the names of proxy variables, whose values are in the environment. `packages` are those that the
    steps install with the base's package manager, `sources` those that they build from source, `tools` the tools of the
    matrix; `user` is one that they create. `uv_platform` is uv's name for what wheels have to fit. `uv_python` is in
    `PYTHON_TAR`.
    """

    folder: Path
    base: ImageRef
    uv: ImageRef
    platform: Platform
    secrets: Mapping[str, Path]
    build_args: Sequence[str]
    no_cache: bool
    uv_platform: str
    uv_python: UvPython | None = None
    user: str = ""
    packages: Sequence[str] = ()
    sources: Sequence[str] = ()
    installs_ca: bool = False
    tools: Sequence[str] = ()
    ssh_agent: bool = False

    @property
    def python_layers(self) -> tuple[Path, ...]:
        """The tars to unpack over the base before anything runs."""
        return (self.folder / PYTHON_TAR,) if self.uv_python else ()


class Maker(Protocol):
    """Makes layers."""

    def make(self, request: MakeRequest, output: Path, *, on_line: Callable[[str], None]) -> int:
        """Run the request's steps and write `<key>.tar` for each layer to a new folder; return the exit code.

        Each line of progress goes to `on_line`, as JSON of BuildKit (see `builder.engine.progress`) or as plain text.
        Raises EngineError if the steps cannot be run at all.
        """


def write_recipe(
    folder: Path, steps: Sequence[tuple[Step, tuple[Layer, ...]]], below: Path | None, python: Path | None = None
) -> None:
    """Write the program, its scripts and its input to a new folder.

    `below` is a tar that the program unpacks before the steps, `python` one that the program itself needs.
    """
    folder.mkdir()
    (folder / RECIPE_NAME).write_bytes(template_bytes(RECIPE_NAME))
    if below:
        shutil.move(below, folder / "below.tar")
    if python:
        shutil.move(python, folder / PYTHON_TAR)
    table = {
        "below": ["below.tar"] if below else [],
        "steps": [_write_step(folder, number, step, layers) for number, (step, layers) in enumerate(steps)],
    }
    (folder / "layers.json").write_text(json.dumps(table, indent=1), encoding="utf-8")


def _write_step(folder: Path, number: int, step: Step, layers: tuple[Layer, ...]) -> dict[str, Any]:
    scripts = {f"setup-{number}.sh": step.setup.encode(), f"step-{number}.sh": step.script.encode()}
    for name, content in {**scripts, **step.files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    is_shared = any(layer.kind == "wheels" for layer in layers)
    return {
        "title": step.title,
        "setup": f"setup-{number}.sh" if step.setup else "",
        "script": f"step-{number}.sh",
        "scope": step.scope,
        "requirements": step.requirements,
        "layers": {layer.key: [each.name for each in layer.packages] if is_shared else [] for layer in layers},
    }
