"""With what a run builds: who makes the layers, and who runs the images to verify them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from builder.engine.buildx import Buildx
from builder.engine.buildx_engine import find_engine
from builder.engine.docker import DockerEngine
from builder.engine.native import NativeEngine
from builder.engine.protocol import Engine
from builder.errors import UsageError
from builder.layer.buildkit import BuildKitMaker
from builder.layer.maker import Maker
from builder.layer.native import NativeMaker
from builder.layer.store import LayerStore
from builder.oci.registry import Registries

MakerName = Literal["auto", "buildkit", "native"]


@dataclass(frozen=True, kw_only=True)
class Means:
    """A maker of layers, and an engine that keeps images: until the run ends, or for longer."""

    maker: Maker
    engine: Engine


def choose_means(
    name: MakerName, buildx: Buildx, registries: Registries, store: LayerStore, roots: Path, *, publishes: bool
) -> Means:
    """Choose by what answers on this machine: for `auto` BuildKit, and nothing but this machine if there is none.

    An image that is not published stays in an engine, so that there must be one. `roots` is the folder for unpacked
    images. Raises EngineError if a named builder does not answer.
    """
    buildkit = BuildKitMaker(buildx=buildx, mirrors=registries.mirrors)
    native = NativeMaker(registries=registries, store=store, folder=roots, processes=buildx.processes)
    docker = DockerEngine(buildx=buildx)  # if it does not run, its own check tells what is wrong
    if not publishes:
        return Means(maker=native if name == "native" else buildkit, engine=docker)
    if name == "native":
        if buildx.builder:
            raise UsageError("--maker native with --builder", hint="omit one of the two")
        return Means(maker=native, engine=docker if docker.is_running() else native_engine(native))
    engine = find_engine(buildx)
    if engine is None and name == "auto":
        return Means(maker=native, engine=native_engine(native))
    return Means(maker=buildkit, engine=engine or docker)


def native_engine(maker: NativeMaker) -> NativeEngine:
    """The engine that runs images as the maker runs its steps."""
    return NativeEngine(open_roots=lambda: maker.roots, processes=maker.processes)
