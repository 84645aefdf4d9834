"""With what a run builds: who makes the layers, and who runs the images to verify them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

from builder.engine.buildx import Buildx
from builder.engine.buildx_engine import find_engine
from builder.engine.docker import DockerEngine
from builder.engine.native import NativeEngine
from builder.engine.protocol import Engine
from builder.errors import EngineError, UsageError
from builder.layer.buildkit import BuildKitMaker
from builder.layer.cross import CrossMaker
from builder.layer.maker import Maker
from builder.layer.native import NativeMaker
from builder.layer.store import LayerStore
from builder.matrix.model import Platform
from builder.oci.registry import Registries
from builder.process import ProcessGroup
from builder.rootfs.confine import find_confinement

_IS_LINUX: Final = sys.platform == "linux"
MakerName = Literal["auto", "buildkit", "native", "cross"]


@dataclass(frozen=True, kw_only=True)
class Means:
    """A maker of layers, and an engine that keeps images: until the run ends, or for longer.

    `reason` says which maker it is and why, for users.
    """

    maker: Maker
    engine: Engine
    reason: str


@dataclass(frozen=True, kw_only=True)
class Here:
    """What makers on this machine need: registries, the local store, and a folder for unpacked images."""

    registries: Registries
    store: LayerStore
    folder: Path
    processes: ProcessGroup

    @cached_property
    def native(self) -> NativeMaker:
        """The maker that runs the base image's programs."""
        return NativeMaker(
            registries=self.registries, store=self.store, folder=self.folder, processes=self.processes
        )  # fmt: skip

    @property
    def cross(self) -> CrossMaker:
        """The maker that runs nothing of the base image."""
        return CrossMaker(
            registries=self.registries, store=self.store, folder=self.folder, processes=self.processes
        )  # fmt: skip


def choose_means(name: MakerName, buildx: Buildx, here: Here, platform: Platform, *, publishes: bool) -> Means:
    """Choose by what answers on this machine: for `auto` BuildKit, and nothing but this machine if there is none.

    BuildKit that cannot run the platform's programs is not chosen either. An image that is not published stays in an
    engine, so that there must be one. Raises EngineError if a named builder does not answer, UsageError if it is named
    for another maker.
    """
    buildkit = BuildKitMaker(buildx=buildx, mirrors=here.registries.mirrors)
    docker = DockerEngine(buildx=buildx)  # if it does not run, its own check tells what is wrong
    own = NativeEngine(open_roots=lambda: here.native.roots, processes=here.processes, platform=platform)
    if name in {"native", "cross"}:
        if not _IS_LINUX:
            raise UsageError(f"--maker {name} works only on Linux", hint="omit it, and use BuildKit")
        if buildx.builder:
            raise UsageError(f"--maker {name} with --builder", hint="omit one of the two")
        maker: Maker = here.cross if name == "cross" else here.native
        engine: Engine = docker if not publishes or docker.is_running() else own
        return Means(maker=maker, engine=engine, reason=f"{name}, as --maker says")
    if name == "buildkit":
        found = find_engine(buildx) if publishes else docker
        return Means(maker=buildkit, engine=found or docker, reason="buildkit, as --maker says")
    found = find_engine(buildx) if publishes else docker
    if found is None and _IS_LINUX:
        maker, reason = _best(here, platform)
        return Means(maker=maker, engine=own, reason=f"{reason}; no Docker engine or buildx builder answers")
    if found and _IS_LINUX and not buildx.builder and _is_foreign(platform) and not buildx.runs(platform):
        reason = f"cross: BuildKit runs no programs for {platform}"
        return Means(maker=here.cross, engine=own if publishes else docker, reason=reason)
    if not (publishes or buildx.builder):  # whether it answers is seen when it builds
        return Means(maker=buildkit, engine=docker, reason="buildkit: an image that is not pushed stays in an engine")
    which = f"the buildx builder {buildx.builder}" if buildx.builder else "an engine or buildx builder"
    return Means(maker=buildkit, engine=found or docker, reason=f"buildkit: {which} answers")


def _is_foreign(platform: Platform) -> bool:
    return platform != Platform.of_this_machine()


def _best(here: Here, platform: Platform) -> tuple[Maker, str]:
    """The native maker, or the one that runs nothing where the base image's programs cannot be run; and why."""
    if _is_foreign(platform):
        return here.cross, f"cross: this machine runs no programs for {platform}"
    try:
        found = find_confinement()
    except EngineError as error:
        return here.cross, f"cross: {error.what}"
    return here.native, f"native, by {found.name}"
