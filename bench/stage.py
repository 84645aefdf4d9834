"""Where `change` measures: a project, a registry of its own with bases of its own, and the recipe to compare with."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from bench.commands import BUILDER, Timed, timed
from bench.projects import BASE, PYTHON, Project
from bench.recipe import Recipe, located
from bench.servers import Registry
from builder.errors import BuilderError
from builder.oci.manifest import Descriptor
from builder.oci.reference import ImageRef
from builder.oci.registry import Registries
from builder.process import run

Variant = Literal["recipe", "builder"]
VARIANTS: Final[tuple[Variant, ...]] = ("recipe", "builder")

_DEPENDENCIES: Final = ("builder: wheels", "builder: source")  # how the history names their layers


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A project, the folder that its rows may use, and the servers."""

    project: Project
    folder: Path
    served: Registry
    registries: Registries
    recipe: Recipe

    def push_base(self, name: str, python: str, *, group: str) -> str:
        """Push a new image on one of the project's bases under `<group>/<name>:<python>`; return its reference.

        It has one more file, which nothing else has, so that no step on it is in the engine's build cache.
        """
        public = self.project.bases[name]["image"].format(python=python)
        tag = f"{self.served.host}/{group}/{name}:{python}"
        dockerfile = f"FROM {located(public)}\nCOPY <<EOF /etc/builder-bench\n{secrets.token_hex()}\nEOF\n"
        argv = ["docker", "buildx", "build", "--provenance=false", "--push", "--tag", tag, "-"]
        run(argv, stdin=dockerfile).check("pushing a base")
        return tag

    def bases(self, group: str, names: Sequence[str], also: str = "") -> dict[str, dict[str, str]]:
        """Definitions of the group's bases for a matrix; with `also`, each a second time, with this after its name."""
        found = {}
        for name in names:
            image = f"{self.served.host}/{group}/{name}:{{python}}"
            found[name] = {"image": image, "family": self.project.bases[name]["family"]}
            if also:
                found[name + also] = found[name]
        return found

    def builder(
        self, matrix: Path, cache: Path, *options: str, expect: str = "", env: Mapping[str, str] | None = None
    ) -> Timed:
        """Run `builder build`; raise BuilderError if a cell has another outcome than the expected one."""
        argv = [BUILDER, "build", "--json", "--file", str(matrix), "--lock", str(self.project.lock), *options]
        done = timed(argv, cwd=self.project.folder, env={**(env or {}), "BUILDER_CACHE_DIR": str(cache)})
        outcomes = {cell["outcome"] for cell in done.cells}
        if expect and outcomes != {expect}:
            raise BuilderError(f"builder build ended with {', '.join(sorted(outcomes))}, not {expect}")
        return done

    def dependency_layers(self, image: str) -> list[Descriptor]:
        """The layers of a pushed image that have packages of the lock."""
        ref = ImageRef.from_str(image)
        manifest = self.registries.fetch_manifest(ref)
        assert manifest is not None, "it was pushed"
        history = self.registries.fetch_config(ref, manifest).history or ()
        titles = [entry.created_by for entry in history if not entry.empty_layer]
        pairs = zip(manifest.body.layers, titles, strict=True)
        return [layer for layer, title in pairs if title.startswith(_DEPENDENCIES)]


@dataclass(frozen=True, kw_only=True)
class Made:
    """An image that was built and pushed: seconds, its reference, the bytes of the blobs that were sent, by digest."""

    seconds: float
    image: str
    sent: Mapping[str, int]
    timings: Mapping[str, float] = field(default_factory=dict)

    @property
    def new_bytes(self) -> int:
        """The bytes of all blobs that were sent."""
        return sum(self.sent.values())


@dataclass(frozen=True, kw_only=True)
class OneCell:
    """One cell of a project, built by the recipe and by builder again and again, on a machine that keeps its caches."""

    stage: Stage
    matrix: Path
    cache: Path
    base: str

    @classmethod
    def open(cls, stage: Stage) -> OneCell:
        """Push the cell's base; this builds nothing."""
        base = stage.push_base(BASE, PYTHON, group="one")
        repository = f"{stage.served.host}/{stage.project.name}"
        matrix = stage.project.write_matrix(stage.folder / "one.toml", repository, stage.bases("one", [BASE]), [PYTHON])
        return cls(stage=stage, matrix=matrix, cache=stage.folder / "one-cache", base=base)

    def make(self, tag: str, *, first: Variant = "recipe") -> dict[Variant, Made]:
        """Build and push the project as it is now, in both ways; `tag` is that of the recipe's image."""
        order = sorted(VARIANTS, key=lambda variant: variant != first)
        return {variant: self._recipe(tag) if variant == "recipe" else self._builder() for variant in order}

    def recipe_image(self, tag: str) -> str:
        """The name of an image of the recipe."""
        return f"{self.stage.served.host}/{self.stage.project.name}-recipe:{tag}"

    def _recipe(self, tag: str) -> Made:
        image, before = self.recipe_image(tag), len(self.stage.served.uploads())
        seconds = self.stage.recipe.build_and_push({image: self.base})
        return Made(seconds=seconds, image=image, sent=self._sent(before))

    def _builder(self) -> Made:
        before = len(self.stage.served.uploads())
        done = self.stage.builder(self.matrix, self.cache, "--push", expect="pushed")
        (cell,) = done.cells
        return Made(seconds=done.seconds, image=_immutable(cell), sent=self._sent(before), timings=cell["timings"])

    def _sent(self, before: int) -> dict[str, int]:
        served = self.stage.served
        return {digest: served.size(digest) for digest in served.uploads()[before:]}


def _immutable(cell: Mapping[str, Any]) -> str:
    """The immutable tag of a cell in the output of `builder build --json`."""
    tag: str = cell["tags"][0]
    return tag
