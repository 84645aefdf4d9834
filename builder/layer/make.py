"""Makes the layers that were not found; cells that need the same one make it once."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from builder.contract import BUILD_SECRETS
from builder.image.build import BuildSettings, failure_of, new_log
from builder.image.build_log import BuildLog
from builder.image.plan import ImagePlan
from builder.layer.artifact import Artifacts
from builder.layer.base import BaseImage
from builder.layer.blobs import Blobs
from builder.layer.inspect import LayerInspector
from builder.layer.maker import PYTHON_TAR, Maker, MakeRequest, write_recipe
from builder.layer.pack import pack
from builder.layer.plan import Compression, Layer, LayerPlan, steps_for
from builder.layer.secrets import secret_marks
from builder.layer.store import StoredLayer
from builder.layer.uv import write_uv
from builder.layer.uv_python import write_python
from builder.oci.reference import Digest
from builder.stopwatch import Stopwatch
from builder.tally import Tally
from builder.tree import wheel_id

_LANES: Final = 2  # layers that are compressed at a time
_COMPRESSING: Final = "compress the layers"
_LINKING: Final = {"ca", "user", "source", "build-systems", "cached"}  # kinds that may need the system packages
_BASE_BUNDLE: Final = "ca-certificates.crt"


@dataclass(kw_only=True)
class Claims:
    """The layers that a run makes: who asks for one first makes it, the others wait for it, or get what was made."""

    _futures: dict[str, Future[StoredLayer | None]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, layers: Sequence[Layer]) -> tuple[tuple[Layer, ...], dict[Layer, Future[StoredLayer | None]]]:
        """Return the layers that the caller has to make, and those that others make."""
        with self._lock:
            others = {layer: self._futures[layer.key] for layer in layers if layer.key in self._futures}
            mine = tuple(layer for layer in layers if layer.key not in self._futures)
            self._futures |= {layer.key: Future() for layer in mine}
        return mine, others

    def settle(self, layers: Iterable[Layer], made: Mapping[str, StoredLayer]) -> None:
        """Hand over what the caller made; who waits for a layer that failed makes it itself."""
        with self._lock:
            for layer in layers:
                is_made = layer.key in made
                future = self._futures[layer.key] if is_made else self._futures.pop(layer.key)
                future.set_result(made.get(layer.key))


@dataclass(frozen=True, kw_only=True)
class LayerWork:
    """What one cell needs made: its plan, the images that the layers are made of, and what layers below are found.

    `python` is the layer with a Python from uv, once there is one; None if the base's own is used.
    """

    plan: LayerPlan
    base: BaseImage
    uv: BaseImage
    blobs: Blobs
    below: StoredLayer | None
    python: StoredLayer | None
    scratch: Path
    watch: Stopwatch
    on_step: Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class LayerFactory:
    """Makes layers for the cells of a run, with one maker and one set of settings; `branch` is empty or a slug.

    `find_uv` returns the program of a version of uv that runs on this machine.
    """

    maker: Maker
    settings: BuildSettings
    compression: Compression
    branch: str
    raise_if_stopped: Callable[[], None]
    artifacts: Artifacts
    find_uv: Callable[[str], Path]
    claims: Claims = field(default_factory=Claims)

    def make(self, work: LayerWork, missing: Sequence[Layer]) -> dict[str, StoredLayer]:
        """Make these layers, or wait for others to make them; return them by key.

        Raises BuildError, with the last output of the step that failed, and EngineError.
        """
        pythons = [layer for layer in missing if layer.kind == "python"]
        if pythons and len(pythons) < len(missing):  # all others are made with it
            made = self.make(work, pythons)
            with_python = replace(work, python=made[pythons[0].key])
            return made | self.make(with_python, [layer for layer in missing if layer not in pythons])
        return self._make_or_wait(work, missing)

    def _make_or_wait(self, work: LayerWork, missing: Sequence[Layer]) -> dict[str, StoredLayer]:
        mine, others = self.claims.take(missing)
        made: dict[str, StoredLayer] = {}
        try:
            if mine:
                made = self._make(work, mine, _below(work, mine, others))
        finally:
            self.claims.settle(mine, made)
        with work.watch.measure("wait for other cells"):
            waited = {layer: future.result() for layer, future in others.items()}
        lost = [layer for layer, stored in waited.items() if stored is None]
        made |= {layer.key: stored for layer, stored in waited.items() if stored is not None}
        return made | self._make_or_wait(work, lost) if lost else made

    def _make(self, work: LayerWork, layers: Sequence[Layer], below: StoredLayer | None) -> dict[str, StoredLayer]:
        with tempfile.TemporaryDirectory(dir=work.scratch) as folder:
            output = Path(folder, "layers")
            output.mkdir()
            if steps_for(work.plan, layers):
                with work.watch.measure("make layers"):
                    self._run_steps(work, layers, below, Path(folder, "recipe"), output)
            if uv := [layer for layer in layers if layer.kind == "uv"]:
                work.on_step("fetch uv")
                with work.watch.measure("fetch uv"):
                    write_uv(work.uv, work.blobs, _tar(output, uv[0]))
            uv_python = work.plan.rendered.plan.cell.uv_python
            if uv_python and (pythons := [layer for layer in layers if layer.kind == "python"]):
                work.on_step(f"fetch {uv_python.name}")
                with work.watch.measure("fetch Python"):
                    uv_version = str(work.plan.rendered.plan.uv.tag)
                    write_python(uv_python, self.find_uv(uv_version), _tar(output, pythons[0]))
            work.on_step(_COMPRESSING)
            with work.watch.measure("compress"):
                return {layer.key: layer for layer in self._pack(work, layers, output)}

    def _pack(self, work: LayerWork, layers: Sequence[Layer], output: Path) -> list[StoredLayer]:
        bundle = output / _BASE_BUNDLE
        public = [bundle.read_bytes()] if bundle.exists() else []
        inspector = LayerInspector(
            cell=work.plan.rendered.plan.cell.name,
            marks=secret_marks(
                self.settings.secrets, [*public, work.plan.rendered.plan.ca], self.settings.proxy_logins
            ),
            artifacts=self.artifacts,
            raise_if_stopped=self.raise_if_stopped,
        )

        # uv and its Pythons contain public certificates, and come from elsewhere, without the secrets.
        without_search = replace(inspector, marks={})

        sizes = {layer: _tar(output, layer).stat().st_size for layer in layers}
        tally = Tally(title=_COMPRESSING, parts=len(layers), size=sum(sizes.values()))

        def packed(layer: Layer) -> StoredLayer:
            with _tar(output, layer).open("rb") as tar:
                inspects = without_search if layer.kind in {"uv", "python"} else inspector
                stored = pack(layer, tar, work.blobs.store, self.compression, inspects)
            _tar(output, layer).unlink()
            work.blobs.store.add(stored, self.branch)
            for package in layer.packages:
                tree = stored.trees.get(wheel_id(package.filename)) if package.is_wheel else None
                if tree and "sha256" in package.source.get("hashes", {}):
                    work.blobs.store.add_tree(package.source["hashes"]["sha256"], tree)
            work.on_step(tally.add(sizes[layer]))
            return stored

        with ThreadPoolExecutor(_LANES) as pool:
            return list(pool.map(packed, layers))

    def _run_steps(
        self, work: LayerWork, layers: Sequence[Layer], below: StoredLayer | None, folder: Path, output: Path
    ) -> None:
        rendered = work.plan.rendered
        unpacked = _unpacked(work, below, output.with_name("below.tar")) if below else None
        python = _unpacked(work, work.python, output.with_name(PYTHON_TAR)) if work.python else None
        write_recipe(folder, steps_for(work.plan, layers, self.settings.index_mirrors), unpacked, python)
        request = MakeRequest(
            folder=folder,
            base=rendered.plan.base,
            uv=rendered.plan.uv,
            platform=rendered.plan.cell.platform,
            secrets={name: path for name, path in self.settings.secrets.items() if name in BUILD_SECRETS},
            build_args=self.settings.proxy_arguments,
            ssh_agent=self.settings.ssh_agent,
            no_cache=self.settings.no_cache,
            uv_platform=rendered.plan.cell.uv_platform,
            uv_python=rendered.plan.cell.uv_python,
            user=rendered.plan.cell.user if any(layer.kind == "user" for layer in layers) else "",
            packages=_packages(rendered.plan, layers),
            installs_ca=any(layer.kind == "ca" for layer in layers),
            tools=[layer.packages[0].name for layer in layers if layer.kind == "tool"],
            sources=[name for layer in layers for name in layer.sources],
        )
        log = new_log(self.settings.log_of(rendered))
        with log.open("w", encoding="utf-8") as file:
            progress = BuildLog(file=file, packages=len(rendered.plan.selection.packages), on_step=work.on_step)
            returncode = self.maker.make(request, output, on_line=progress.read)
            progress.finish()
        if returncode:
            raise failure_of(rendered, progress, returncode, log)


def _below(
    work: LayerWork, layers: Sequence[Layer], others: Mapping[Layer, Future[StoredLayer | None]]
) -> StoredLayer | None:
    """The layer of system packages that these layers may link against; None if none does, or if it is one of them."""
    kinds = {layer.kind for layer in layers}
    if not kinds & _LINKING or "system" in kinds:
        return None
    return work.below or next((future.result() for layer, future in others.items() if layer.kind == "system"), None)


def _unpacked(work: LayerWork, layer: StoredLayer, path: Path) -> Path:
    """The plain tar of a layer, at this path."""
    with work.blobs.open_plain(Digest.from_str(layer.digest)) as plain, path.open("wb") as file:
        shutil.copyfileobj(plain, file, 1 << 20)
    return path


def _packages(plan: ImagePlan, layers: Sequence[Layer]) -> tuple[str, ...]:
    """The system packages that are installed while these layers are made."""
    system = plan.cell.packages if any(layer.kind == "system" for layer in layers) else ()
    return (*system, *(plan.toolchain if any(layer.sources for layer in layers) else ()))


def _tar(folder: Path, layer: Layer) -> Path:
    return folder / f"{layer.key}.tar"
