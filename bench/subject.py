"""The example project, locked again, and temporary images of it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import uv

from bench.figures import say
from builder.cli.making import layered_build
from builder.engine.docker import DockerEngine
from builder.image.build import BuildSettings, build
from builder.image.render import RenderedImage
from builder.layer.build import CellWork, LayeredBuild
from builder.layer.buildkit import BuildKitMaker
from builder.layer.store import LayerStore
from builder.oci.reference import ImageRef
from builder.process import run
from builder.request import Request, open_registries, read_project
from builder.run import plan_images
from builder.secret import proxy_arguments, read_build_secrets
from builder.stopwatch import Stopwatch
from builder.verify.checkout import Checkout

ROOT: Final = Path(__file__).resolve().parent.parent
EXAMPLE: Final = ROOT / "examples" / "webshop"
CELL: Final = "python=3.13,base=bookworm-slim"

_ATTEMPTS: Final = 5
_NOT_COPIED: Final = (".venv", "uv.lock", "requirements.txt", "__pycache__", ".*_cache")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The example project, ready to build; `rendered` is its image, under a temporary name."""

    project: Path
    rendered: RenderedImage
    checkout: Checkout
    settings: BuildSettings
    layers: LayeredBuild
    engine: DockerEngine

    @contextlib.contextmanager
    def layered(self) -> Iterator[str]:
        """Assemble the image of layers, as `builder build` does; yield its name. It is removed at the end."""
        say("making the layers of the baked image")
        name = str(self.rendered.immutable_tag)
        try:
            with tempfile.TemporaryDirectory(dir=self.project.parent) as scratch:
                work = CellWork(
                    rendered=self.rendered, scratch=Path(scratch), watch=Stopwatch(), on_step=lambda _: None
                )
                self.layers.build(work, self.engine)
            yield name
        finally:
            run(["docker", "image", "rm", "--force", name])

    @contextlib.contextmanager
    def image(self, what: str, alter: Callable[[str], str] = str) -> Iterator[str]:
        """Build an image from the rendered Dockerfile, changed by `alter`; yield its name. It is removed at the end.

        The engine's build cache keeps the steps, so a second run of the bench does not build them again.
        """
        say(f"building {what}")
        altered = _altered(self.rendered, alter)
        name = str(altered.immutable_tag)
        try:
            build(altered, self.engine, self.settings, self.project.parent, on_step=lambda _: None)
            yield name
        finally:
            run(["docker", "image", "rm", "--force", name])


def _altered(rendered: RenderedImage, alter: Callable[[str], str]) -> RenderedImage:
    files = {name: content for name, content in rendered.files if name != "Dockerfile"}
    dockerfile = alter(dict(rendered.files)["Dockerfile"].decode()).encode()
    key = hashlib.sha256(rendered.key.encode() + dockerfile).hexdigest()
    return replace(rendered, files=(("Dockerfile", dockerfile), *files.items()), key=key)


def replaced(text: str, old: str, new: str) -> str:
    """Replace the only occurrence of a text; raise ValueError if the template has changed."""
    if text.count(old) != 1:
        raise ValueError(
            f"the rendered Dockerfile contains {old!r} {text.count(old)} times, not once: update the bench"
        )
    return text.replace(old, new)


def locked_example(scratch: Path) -> Path:
    """Copy the example project into the scratch folder and lock it there; return its folder."""
    project = scratch / EXAMPLE.name
    if not project.exists():
        say("locking the example project")
        shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns(*_NOT_COPIED))
        run([uv.find_uv_bin(), "lock"], cwd=project).check("uv lock")
    return project


def subject(scratch: Path) -> Subject:
    """Prepare the build of the example's image for one cell; this builds nothing."""
    project = locked_example(scratch)
    read = read_project(Request(matrix=project / "matrix.toml", lock=project / "uv.lock", only=(CELL,)))
    registries = open_registries(read.matrix, read.mirrors)
    (rendered,) = plan_images(read, registries)
    # A name that only this run uses, because it removes the images at the end.
    repository = ImageRef.from_str(f"builder-bench-{os.getpid()}-{secrets.token_hex(3)}")
    engine = DockerEngine()
    engine.check()
    settings = BuildSettings(
        mirrors=read.mirrors, secrets=read_build_secrets(), proxy_arguments=proxy_arguments(), logs=scratch / "logs"
    )
    maker = BuildKitMaker(buildx=engine.buildx, mirrors=read.mirrors)
    layers = layered_build(read, settings, registries, maker, publishes=False)
    return Subject(
        project=project,
        rendered=replace(rendered, plan=replace(rendered.plan, repository=repository)),
        checkout=Checkout.of(read.lock),
        settings=settings,
        # Neither layers of earlier runs, nor any that stay.
        layers=replace(layers, store=LayerStore(folder=scratch / "layer-store"), repositories=None),
        engine=engine,
    )


def remove_images(*patterns: str) -> None:
    """Remove the images from the engine whose names, without tags, match one of the patterns."""
    filters = [f"--filter=reference={pattern}" for pattern in patterns]
    for _ in range(_ATTEMPTS):  # the list fails while somebody else removes an image that is in it
        listed = run(["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", *filters])
        if not listed.returncode:
            break
    if names := [name for name in listed.stdout.split() if not name.endswith(":<none>")]:
        run(["docker", "image", "rm", "--force", *names])
