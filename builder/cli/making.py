"""A run of `builder build`: chooses a maker for each platform, makes the cells, and publishes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from builder.cli.output.live import Display
from builder.engine.buildx import Buildx
from builder.folders import cache_folder, layer_folder, record_folder, root_folder
from builder.image.build import BuildSettings
from builder.image.render import RenderedImage
from builder.layer.artifact import Artifacts
from builder.layer.build import LayeredBuild
from builder.layer.make import LayerFactory
from builder.layer.maker import Maker
from builder.layer.store import LayerStore
from builder.lock.uv import uv_program
from builder.matrix.model import Platform
from builder.means import Here, MakerName, Means, choose_means
from builder.oci.registry import Registries
from builder.publication import PromoteMode, Publication, build_and_publish
from builder.release.publisher import RegistryPublisher
from builder.release.state import fetch_states
from builder.request import Project, layer_repositories
from builder.run import CellResult, ProgressEvent, RunContext, make_cells
from builder.verify.checkout import Checkout


@dataclass(frozen=True, kw_only=True)
class BuildRun:
    """What a run has in common for all cells: the options of `builder build`, and where it shows what it does."""

    project: Project
    settings: BuildSettings
    registries: Registries
    buildx: Buildx
    display: Display
    maker: MakerName
    jobs: int
    reuse: bool
    verifies: bool
    publishes: bool
    later: Path | None

    @property
    def publisher(self) -> RegistryPublisher:
        """Publishes to the matrix's repository."""
        return RegistryPublisher(
            registries=self.registries, compression=self.project.matrix.compression,
            repositories=layer_repositories(self.project.matrix),
        )  # fmt: skip

    def build(self, rendered: Sequence[RenderedImage], promote: PromoteMode) -> Publication:
        """Make the cells, and publish them if asked to; if every cell is up to date, no engine is needed."""
        if not self.publishes:
            return Publication(results=self.make(rendered))
        states = fetch_states(rendered, self.registries)
        return build_and_publish(states, self.make, self.publisher, promote="none" if self.later else promote)

    def make(self, cells: Sequence[RenderedImage]) -> tuple[CellResult, ...]:
        """Make cells, those for this machine's platform first; what makes each is chosen before the first is made."""
        platforms = sorted({image.plan.cell.platform for image in cells}, key=_is_foreign)
        means = {platform: self._means(platform) for platform in platforms}
        results: list[CellResult] = []
        for platform in platforms:
            context = self._context(means[platform])
            chosen = [image for image in cells if image.plan.cell.platform == platform]
            for image in chosen:
                text = f"maker: {means[platform].reason}"
                self.display.show(ProgressEvent(cell=image.plan.cell.name, stage="build", text=text))
            results += make_cells(chosen, context, jobs=self.jobs)
        return tuple(results)

    def _means(self, platform: Platform) -> Means:
        here = Here(
            registries=self.registries, store=LayerStore(folder=layer_folder()), folder=root_folder(),
            processes=self.buildx.processes,
        )  # fmt: skip
        return choose_means(self.maker, self.buildx, here, platform, publishes=self.publishes)

    def _context(self, means: Means) -> RunContext:
        return RunContext(
            engine=means.engine,
            settings=self.settings,
            layered=layered_build(self.project, self.settings, self.registries, means.maker, publishes=self.publishes),
            checkouts={name: Checkout.of(lock) for name, lock in self.project.locks.items()} if self.verifies else {},
            on_event=self.display.show,
            publisher=self.publisher if self.publishes else None,
            records=record_folder(),
            reuse=self.reuse,
            later=self.later,
            made_by=means.reason,
        )


def _is_foreign(platform: Platform) -> bool:
    return platform != Platform.of_this_machine()


def layered_build(
    project: Project, settings: BuildSettings, registries: Registries, maker: Maker, *, publishes: bool
) -> LayeredBuild:
    """How this project's images are built of layers."""
    store = LayerStore(folder=layer_folder())
    store.sweep()
    return LayeredBuild(
        factory=LayerFactory(
            maker=maker, settings=settings, compression=project.matrix.compression, branch=project.matrix.branch,
            raise_if_stopped=lambda: registries.pause(0), artifacts=Artifacts(stopped=registries.stopped),
            find_uv=partial(uv_program, cache=cache_folder()),
        ),
        registries=registries, store=store, repositories=layer_repositories(project.matrix),
        most=project.matrix.max_layers, publishes=publishes,
    )  # fmt: skip
