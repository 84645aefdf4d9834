"""Builds an image of layers: finds those that exist, makes the others, and gives the result to the engine."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from builder.engine.protocol import Engine
from builder.errors import BuildError, EngineError, RegistryError
from builder.image.build import advice_on
from builder.image.build_log import bytes_done
from builder.image.render import RenderedImage
from builder.layer.assemble import AssembledImage, assemble
from builder.layer.base import BaseImage, fetch_image
from builder.layer.blobs import Blobs, BlobSource, LostBlobError
from builder.layer.find import FoundLayer, FoundLayers, LayerRepositories, fetch_found, find_stored
from builder.layer.make import LayerFactory, LayerWork
from builder.layer.plan import Kind, Layer, LayerPlan, ordered, plan_layers, room_above
from builder.layer.sizes import fetch_sizes
from builder.layer.store import LayerStore, StoredLayer
from builder.oci.reference import Digest
from builder.oci.registry import Registries
from builder.stopwatch import Stopwatch


@dataclass(frozen=True, kw_only=True)
class CellWork:
    """What one cell needs: a folder of its own, and where to report. `upload` sends blobs while the engine loads.

    It tells a function how many bytes are there, of how many.
    """

    rendered: RenderedImage
    scratch: Path
    watch: Stopwatch
    on_step: Callable[[str], None]
    upload: Callable[[AssembledImage, Callable[[int, int], None]], None] | None = None

    def tell_sent(self, done: int, total: int) -> None:
        """Report how many bytes of the image a registry has."""
        self.on_step(f"pushing {bytes_done(done, total)}")


@dataclass(frozen=True, kw_only=True)
class LayerStatus:
    """The layers of an image, and those of them that would have to be made."""

    plan: LayerPlan
    missing: tuple[Layer, ...]

    @property
    def download(self) -> int:
        """Bytes to download for the missing layers, as far as sizes are known."""
        return sum(
            (package.size or 0) if layer.kind in {"cached", "tool"} else self.plan.sizes.get(package.name, 0)
            for layer in self.missing for package in layer.packages
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LayeredBuild:
    """How the cells of a run are built. Without `repositories`, layers are looked for on this machine alone.

    `most` is the number of layers that an image may have above its base's. With `publishes`, the repositories are asked
    first, and must answer.
    """

    factory: LayerFactory
    registries: Registries
    store: LayerStore
    repositories: LayerRepositories | None
    most: int
    publishes: bool

    def build(self, work: CellWork, engine: Engine | None, lost: frozenset[Digest] = frozenset()) -> AssembledImage:
        """Assemble an image and load it into the engine under its immutable tag; without one, only upload its blobs.

        `lost` are digests of blobs that are nowhere; a layer that a registry has lost is made again. Raises BuildError,
        RegistryError or EngineError.
        """
        try:
            image = self.assemble(work, lost)
            if engine:
                work.on_step("load the image")
                self._load(image, work, engine)
            elif work.upload:
                with work.watch.measure("send"):
                    work.upload(image, work.tell_sent)
        except LostBlobError as error:
            if error.digest in lost:
                raise
            return self.build(work, engine, lost | {error.digest})
        return image

    def _load(self, image: AssembledImage, work: CellWork, engine: Engine) -> None:
        loaded = threading.Event()

        def tell_sent(done: int, total: int) -> None:
            if loaded.is_set():
                work.tell_sent(done, total)

        with ThreadPoolExecutor(1) as pool:
            # Blobs that no manifest names yet do no harm if the image turns out to be broken.
            sent = pool.submit(work.upload, image, tell_sent) if work.upload else None
            with work.watch.measure("load"), _known_failures(work.rendered):
                engine.load(image, work.rendered.immutable_tag, str(work.rendered.plan.cell.platform))
            loaded.set()
            with work.watch.measure("send"), contextlib.suppress(RegistryError):  # pushing tries it again
                if sent:
                    sent.result()

    def assemble(self, work: CellWork, lost: Collection[Digest] = ()) -> AssembledImage:
        """Find and make the image's layers, and assemble it; `lost` are digests of blobs that are nowhere."""
        rendered, platform = work.rendered, work.rendered.plan.cell.platform
        with work.watch.measure("find layers"):
            base = fetch_image(rendered.plan.base, platform, self.registries, self.store)
            plan, existing = self._plan_and_find(rendered, base)
        usable = {} if self.factory.settings.no_cache else existing
        kept = {key: each for key, each in usable.items() if Digest.from_str(each.stored.digest) not in lost}
        proves = self.factory.settings.reverify
        found = {key: replace(each, proven=each.proven and not proves) for key, each in kept.items()}
        missing = [layer for layer in plan.layers if layer.key not in found]
        if missing:
            uv = fetch_image(rendered.plan.uv, platform, self.registries, self.store)
            making = LayerWork(
                plan=plan, base=base, uv=uv, blobs=self._blobs({**_origins(base, found), **_origins(uv, {})}),
                below=_single_layer("system", plan, found),
                python=_single_layer("python", plan, found),
                scratch=work.scratch, watch=work.watch, on_step=work.on_step,
            )  # fmt: skip
            made = self.factory.make(making, missing)
            found |= {key: FoundLayer(stored=stored, repository=None) for key, stored in made.items()}
        for name in self._names(rendered):
            self.store.add_order(name, (layer.key for layer in plan.layers))
        return assemble(plan, base, found, missing, self._blobs(_origins(base, found)))

    def _names(self, rendered: RenderedImage) -> tuple[str, str]:
        """Under which the order of the image's layers is noted on this machine: its own key, and its cell."""
        plan = rendered.plan
        return rendered.key, f"{plan.repository}:{plan.cell.name} {plan.branch}"

    def _blobs(self, origins: Mapping[str, BlobSource]) -> Blobs:
        return Blobs(store=self.store, registries=self.registries, origins=origins)

    def prove(self, image: AssembledImage) -> None:
        """Note that the image passed every check, so that its layers need not be proven again in another image."""
        self.store.prove(Digest.from_str(layer.digest) for layer in image.manifest.body.layers)

    def fetch_status(self, rendered: RenderedImage) -> LayerStatus:
        """Plan an image's layers, and look which of them exist; the repositories are asked if there are any."""
        base = fetch_image(rendered.plan.base, rendered.plan.cell.platform, self.registries, self.store)
        plan, found = self._plan_and_find(rendered, base)
        return LayerStatus(plan=plan, missing=tuple(layer for layer in plan.layers if layer.key not in found))

    def find(self, rendered: RenderedImage) -> AssembledImage | None:
        """Assemble an image all of whose layers are on this machine; None if one is missing, or its base is unknown."""
        try:
            base = fetch_image(rendered.plan.base, rendered.plan.cell.platform, self.registries, self.store)
        except RegistryError:
            return None
        plan = ordered(self._plan(rendered, base), self.store.order(self._names(rendered)))
        found = self._find_stored(plan.layers)
        if len(found) < len(plan.layers):
            return None
        return assemble(plan, base, found, (), self._blobs(_origins(base, found)))

    def _plan(self, rendered: RenderedImage, base: BaseImage) -> LayerPlan:
        sizes = fetch_sizes(rendered.plan.selection.packages, self.store, self.registries.stopped)
        most = room_above(len(base.layers), self.most)
        return plan_layers(rendered, base.interpreter, self.factory.compression, most, sizes)

    def _find_stored(self, layers: Iterable[Layer]) -> dict[str, FoundLayer]:
        return find_stored(layers, self.store, self.factory.branch)

    def _plan_and_find(self, rendered: RenderedImage, base: BaseImage) -> tuple[LayerPlan, Mapping[str, FoundLayer]]:
        plan = self._plan(rendered, base)
        found = self._find(plan)
        return ordered(plan, found.order), found.layers

    def _find(self, plan: LayerPlan) -> FoundLayers:
        order = self.store.order(self._names(plan.rendered))
        if self.repositories and self.publishes:  # runners have the registry's last image, not this machine's
            there = fetch_found(plan, self.repositories, self.registries)
            here = self._find_stored([layer for layer in plan.layers if layer.key not in there.layers])
            return FoundLayers(layers={**here, **there.layers}, order=there.order or order)
        here = self._find_stored(plan.layers)
        if self.repositories and len(here) < len(plan.layers):
            with contextlib.suppress(RegistryError):  # a laptop without a login makes its layers itself
                there = fetch_found(plan, self.repositories, self.registries)
                return FoundLayers(layers={**there.layers, **here}, order=order or there.order)
        return FoundLayers(layers=here, order=order)


@contextlib.contextmanager
def _known_failures(rendered: RenderedImage) -> Iterator[None]:
    """Turn a failure to load that has a known remedy, such as a full disk, into one of the cell's build."""
    try:
        yield
    except EngineError as error:
        if not (advice := advice_on(error.what)):
            raise
        what = f"{rendered.plan.cell.name}: the image cannot be loaded: {error.what}"
        raise BuildError(what, hint="\n  ".join(advice)) from error


def _single_layer(kind: Kind, plan: LayerPlan, found: Mapping[str, FoundLayer]) -> StoredLayer | None:
    keys = [layer.key for layer in plan.layers if layer.kind == kind and layer.key in found]
    return found[keys[0]].stored if keys else None


def _origins(base: BaseImage, found: Mapping[str, FoundLayer]) -> dict[str, BlobSource]:
    """Where blobs are fetched from that are not in the store, by digest."""
    origins = {layer.digest: BlobSource(repository=base.ref, size=layer.size) for layer in base.layers}
    return origins | {
        each.stored.digest: BlobSource(repository=each.repository, size=each.stored.size)
        for each in found.values()
        if each.repository
    }
