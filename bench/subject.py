"""What is measured: the example project, locked afresh, and images that are made for it and removed again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import uv

from bench.figures import say
from builder.engine.docker import DockerEngine
from builder.image.build import BuildSettings, build
from builder.image.render import RenderedImage
from builder.oci.reference import ImageRef
from builder.process import run
from builder.request import Request, open_registries, proxy_arguments, read_build_secrets, read_project
from builder.run import plan_images
from builder.verify.checkout import Checkout

ROOT: Final = Path(__file__).resolve().parent.parent
EXAMPLE: Final = ROOT / "examples" / "webshop"
CELL: Final = "python=3.13,base=bookworm-slim"

_NOT_COPIED: Final = (".venv", "uv.lock", "requirements.txt", "__pycache__", ".*_cache")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The example project, ready to be built; `rendered` is its image as builder makes it, under a name of our own."""

    project: Path
    rendered: RenderedImage
    checkout: Checkout
    settings: BuildSettings
    engine: DockerEngine

    @contextlib.contextmanager
    def image(self, what: str, alter: Callable[[str], str] = str) -> Iterator[str]:
        """An image built from the rendered Dockerfile as `alter` rewrites it; its name. It is removed at the end.

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
    """Replace what occurs exactly once; a template that has changed must not go unnoticed."""
    if text.count(old) != 1:
        raise ValueError(f"the rendered Dockerfile has {old!r} {text.count(old)} times, not once: bench is out of date")
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
    """Make everything ready to build the example's image for one cell; nothing is built yet."""
    project = locked_example(scratch)
    read = read_project(Request(matrix=project / "matrix.toml", lock=project / "uv.lock", only=(CELL,)))
    (rendered,) = plan_images(read, open_registries(read.matrix, read.mirrors))
    # A name of this run's own: what it removes at the end is never an image that somebody uses.
    repository = ImageRef.from_str(f"builder-bench-{os.getpid()}-{secrets.token_hex(3)}")
    engine = DockerEngine()
    engine.check()
    return Subject(
        project=project,
        rendered=replace(rendered, plan=replace(rendered.plan, repository=repository)),
        checkout=Checkout.of(read.lock),
        settings=BuildSettings(
            mirrors=read.mirrors, secrets=read_build_secrets(), proxy_arguments=proxy_arguments(), logs=scratch / "logs"
        ),
        engine=engine,
    )


def remove_images(repository: str) -> None:
    """Remove the engine's images of a repository, whatever their tags."""
    named = run(
        ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={repository}"]
    )
    if names := named.stdout.split():
        run(["docker", "image", "rm", "--force", *names])
