"""The layers of an image, in order, each with the key by which it is found again. Pure: asks nobody, makes nothing.

A layer's key is the hash of all that decides its files. A layer of wheels does not depend on the base image's digest,
only on the interpreter, and, unless its wheels are for any platform, on architecture and libc. What is built from
source may link against the base and the system packages, so their keys are in its key, and so is what it is built with.

Large packages have layers of their own; the others share a fixed number of layers, chosen by a hash of the name, so
that a package that comes, goes or changes changes one layer. A client that has an older image unpacks again whatever is
above the first layer that changed. So layers keep their places in the cell's last image, and new ones come last.
Without such an image the largest come first.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Final, Literal

from builder.contract import PYTHON_LINKS, STDLIB, UV_PYTHONS
from builder.image.plan import ImagePlan
from builder.image.render import RECIPE_NAME, RenderedImage, template_bytes
from builder.index_mirror import IndexMirrors
from builder.layer.step import (
    Step,
    build_systems_step,
    ca_step,
    cached_step,
    environment_step,
    source_step,
    stdlib_step,
    system_step,
    tool_step,
    toolchain_step,
    user_step,
    wheels_step,
)
from builder.lock.model import SelectedPackage, Tool

Kind = Literal[
    "system", "ca", "user", "uv", "python", "stdlib", "environment", "build-systems",
    "source", "wheels", "cached", "tool",
]  # fmt: skip
Compression = Literal["gzip", "zstd"]

_LARGE: Final = 512 * 1024  # bytes of a wheel that gets a layer of its own
_SHARED: Final = 16  # layers for the other wheels, for those of any platform as many again
_ENGINES_LIMIT: Final = 127  # layers in an image
MOST_LAYERS: Final = 100  # by default: leaves room for the base's own


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer of an image: its key (64 hexadecimal digits), and its packages, if it is one of dependencies."""

    kind: Kind
    key: str
    packages: tuple[SelectedPackage, ...] = field(default=(), compare=False)

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of its packages that are built from source."""
        is_source = self.kind == "source"
        return tuple(package.name for package in self.packages if is_source or not package.is_wheel)

    @property
    def title(self) -> str:
        """What is in it, for the image's history and for messages."""
        names = ", ".join(package.name for package in self.packages)
        return f"{self.kind}: {names}" if names else self.kind


@dataclass(frozen=True, kw_only=True)
class LayerPlan:
    """The layers of an image above those of its base, the lowest first; `sizes` are those of artifacts, by package."""

    rendered: RenderedImage
    layers: tuple[Layer, ...]
    sizes: Mapping[str, int]

    @property
    def dependencies(self) -> tuple[Layer, ...]:
        """The layers that have packages of the lock."""
        return tuple(layer for layer in self.layers if layer.packages)


def ordered(plan: LayerPlan, last: Sequence[str]) -> LayerPlan:
    """Give the layers of packages their places in the cell's last image, whose keys `last` has; new ones come last."""
    places = {key: place for place, key in enumerate(last)}
    foundation = (layer for layer in plan.layers if not layer.packages)
    others = sorted(plan.dependencies, key=lambda layer: places.get(layer.key, len(places)))
    return replace(plan, layers=(*foundation, *others))


def room_above(base_layers: int, most: int) -> int:
    """How many layers to plan above those of a base, where `most` are asked for: the notes are a layer too."""
    return min(most, _ENGINES_LIMIT - base_layers) - 1


def plan_layers(
    rendered: RenderedImage, interpreter: str, compression: Compression, most: int, sizes: Mapping[str, int]
) -> LayerPlan:
    """Plan the layers of an image, at most `most` of them.

    `interpreter` identifies the base's Python: see `builder.layer.base`. `sizes` are those of artifacts in bytes, by
    package, as far as they are known.
    """
    uv_python = rendered.plan.cell.uv_python
    identity = uv_python.identity if uv_python else interpreter
    keys = _Keys(plan=rendered.plan, interpreter=identity, compression=compression)
    foundation = tuple(_foundation(keys))
    sources = [package for package in rendered.plan.selection.packages if package.artifact != "wheel"]
    wheels = [package for package in rendered.plan.selection.packages if package.artifact == "wheel"]
    cached = [Layer(kind="cached", key=keys.cached(group), packages=group) for group in rendered.plan.selection.cached]
    tools = [Layer(kind="tool", key=keys.tool(tool), packages=tool.packages) for tool in rendered.plan.selection.tools]
    room = most - len(foundation) - len(cached) - len(tools)
    built = [Layer(kind="source", key=keys.source(group), packages=group) for group in _source_groups(sources, room)]
    groups = _groups(wheels, room - len(built), sizes)
    shared = [Layer(kind="wheels", key=keys.wheels(group), packages=group) for group in groups]
    return LayerPlan(rendered=rendered, layers=(*foundation, *built, *cached, *tools, *shared), sizes=sizes)


def _foundation(keys: _Keys) -> Iterator[Layer]:
    if keys.plan.cell.packages:
        yield Layer(kind="system", key=keys.system)
    if keys.plan.ca:
        yield Layer(kind="ca", key=keys.ca)
    if keys.plan.cell.user:
        yield Layer(kind="user", key=keys.user)
    yield Layer(kind="uv", key=keys.uv)
    if keys.plan.cell.uv_python:
        yield Layer(kind="python", key=keys.python)
    yield Layer(kind=STDLIB, key=keys.stdlib)
    yield Layer(kind="environment", key=keys.environment)
    if keys.plan.selection.build_systems:
        yield Layer(kind="build-systems", key=keys.build_systems)


def _source_groups(sources: Sequence[SelectedPackage], room: int) -> list[tuple[SelectedPackage, ...]]:
    """The packages of each layer that is built from source: one, unless they would need more than half of the room."""
    most = room // 2
    if len(sources) <= most:
        return [(package,) for package in sources]
    groups: defaultdict[int, list[SelectedPackage]] = defaultdict(list)
    for package in sources:
        groups[_bucket(package.name, most)].append(package)
    return [tuple(group) for _, group in sorted(groups.items())]


def _groups(
    wheels: Sequence[SelectedPackage], room: int, sizes: Mapping[str, int]
) -> list[tuple[SelectedPackage, ...]]:
    """The wheels of each layer, the largest first; at most as many layers as there is room for."""

    def weight(package: SelectedPackage) -> tuple[int, str]:
        # By powers of two, so that a package that grows a little keeps its place. One of unknown size may be large.
        return (-sizes.get(package.name, sys.maxsize).bit_length(), package.name)

    shared = max(1, min(_SHARED, room // 4))
    large = sorted((each for each in wheels if sizes.get(each.name, _LARGE) >= _LARGE), key=weight)
    alone = large[: max(0, room - 2 * shared)]
    groups: defaultdict[tuple[bool, int], list[SelectedPackage]] = defaultdict(list)
    for package in wheels:
        if package not in alone:
            groups[_is_portable(package), _bucket(package.name, shared)].append(package)
    return [*((each,) for each in alone), *(tuple(group) for _, group in sorted(groups.items()))]


def _bucket(name: str, count: int) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % count


def _is_portable(package: SelectedPackage) -> bool:
    """Whether the wheel is for any platform (PyPA specifications, "Platform compatibility tags")."""
    return package.filename.endswith("-any.whl")


def _identity(package: SelectedPackage) -> dict[str, Any]:
    """What tells an artifact from others, and where uv notes that it came from; not what a lock may also say of it."""
    source = {name: value for name, value in package.source.items() if name not in {"size", "upload-time"}}
    return {"name": package.name, "version": package.version, "index": package.index, **source}


@dataclass(frozen=True, kw_only=True)
class _Keys:
    """The keys of one image's layers."""

    plan: ImagePlan
    interpreter: str
    compression: Compression

    @cached_property
    def uv(self) -> str:
        return self._hash("uv", str(self.plan.uv.digest), self._target)

    @cached_property
    def system(self) -> str:
        return self._of_base(system_step(self.plan))

    @cached_property
    def ca(self) -> str:
        return self._of_base(ca_step(self.plan), self._below)

    @cached_property
    def user(self) -> str:
        return self._of_base(user_step(self.plan), self._below)

    @cached_property
    def python(self) -> str:
        uv_python = self.plan.cell.uv_python
        return self._hash(
            "python", asdict(uv_python) if uv_python else None, self.plan.uv.tag, UV_PYTHONS, PYTHON_LINKS
        )

    @cached_property
    def stdlib(self) -> str:
        return self._of_python(stdlib_step(self.plan))

    @cached_property
    def environment(self) -> str:
        return self._of_python(environment_step(self.plan), self.plan.uv.tag)

    @cached_property
    def build_systems(self) -> str:
        return self._of_base(build_systems_step(self.plan), self.plan.uv.tag, self._below)

    def source(self, packages: Sequence[SelectedPackage]) -> str:
        return self._built(source_step(self.plan, packages), packages)

    def _built(self, step: Step, packages: Sequence[SelectedPackage]) -> str:
        artifacts = [_identity(package) for package in packages]
        toolchain = [toolchain_step(self.plan).script] if self.plan.toolchain else []
        return self._of_base(step, self.plan.uv.tag, self._below, artifacts, *toolchain)

    def wheels(self, packages: Sequence[SelectedPackage]) -> str:
        step = wheels_step(self.plan, ())
        target = "any" if all(map(_is_portable, packages)) else self._target
        artifacts = [_identity(package) for package in packages]
        return self._hash(step.setup, step.script, artifacts, self.interpreter, target, self.plan.uv.tag)

    def cached(self, packages: Sequence[SelectedPackage]) -> str:
        step = cached_step(self.plan, packages)
        if not all(package.is_wheel for package in packages):
            return self._built(step, packages)
        artifacts = [_identity(package) for package in packages]
        return self._hash(step.script, artifacts, self._target, self.interpreter, self.plan.uv.tag)

    def tool(self, tool: Tool) -> str:
        """Its environment names the base's Python, as the project's does."""
        return self._of_base(tool_step(self.plan, tool), self.plan.uv.tag, [_identity(each) for each in tool.packages])

    @property
    def _below(self) -> str:
        return self.system if self.plan.cell.packages else ""

    @property
    def _target(self) -> str:
        cell = self.plan.cell
        return f"{cell.platform.machine} {'musl' if cell.family == 'alpine' else 'glibc'}"

    def _of_python(self, step: Step, *inputs: Any) -> str:
        """Of a step that needs Python alone: its own layer's, whatever the base, or that of the base."""
        if self.plan.cell.uv_python:
            return self._hash(step.setup, step.script, self.python, *inputs)
        return self._of_base(step, *inputs)

    def _of_base(self, step: Step, *inputs: Any) -> str:
        files = {
            name: hashlib.sha256(content).hexdigest()
            for name, content in step.files.items()
            if name != step.requirements
        }
        base = [str(self.plan.base.digest), self._target]
        python = [self.python] if self.plan.cell.uv_python else []
        return self._hash(step.setup, step.script, files, base, *inputs, *python)

    def _hash(self, *inputs: Any) -> str:
        recipe = hashlib.sha256(template_bytes(RECIPE_NAME)).hexdigest()
        text = json.dumps([recipe, self.compression, *inputs], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def steps_for(
    plan: LayerPlan, missing: Iterable[Layer], mirrors: IndexMirrors | None = None
) -> list[tuple[Step, tuple[Layer, ...]]]:
    """The steps that make these layers, each with its layers; those of uv itself, and of a Python from uv, need none.

    What sources are built with is installed by a step without layers. Files come from the mirrors, if there are some;
    uv's cache has them as the lock names them, by index and name.
    """
    mirrors = mirrors or IndexMirrors()
    located = partial(_located, mirrors)
    wanted = set(missing)
    layers = [layer for layer in plan.layers if layer in wanted]
    image = plan.rendered.plan
    single: Mapping[Kind, Callable[[ImagePlan], Step]] = {
        "system": system_step,
        "ca": ca_step,
        "user": user_step,
        "stdlib": stdlib_step,
        "environment": environment_step,
        "build-systems": build_systems_step,
    }
    foundation = [(single[layer.kind](image), (layer,)) for layer in layers if layer.kind in single]
    built = [
        (source_step(image, [*map(located, layer.packages)], mirrors.locate), (layer,))
        for layer in layers
        if layer.kind == "source"
    ]
    built += [
        (cached_step(image, [*map(located, layer.packages)], mirrors.locate), (layer,))
        for layer in layers
        if layer.kind == "cached"
    ]
    tools = {tool.name: _at_mirrors(mirrors, tool) for tool in image.selection.tools}
    built += [(tool_step(image, tools[layer.packages[0].name]), (layer,)) for layer in layers if layer.kind == "tool"]
    # After all steps whose layers may have files outside of /opt/uv.
    needs_toolchain = image.toolchain and any(layer.sources for layer in layers)
    toolchain: list[tuple[Step, tuple[Layer, ...]]] = [(toolchain_step(image), ())] if needs_toolchain else []
    wheels = tuple(layer for layer in layers if layer.kind == "wheels")
    packages = [located(package) for layer in wheels for package in layer.packages]
    return [*foundation, *toolchain, *built, *([(wheels_step(image, packages), wheels)] if wheels else [])]


def _at_mirrors(mirrors: IndexMirrors, tool: Tool) -> Tool:
    """The tool as it is fetched; uv's cache has nothing of it."""
    sources = [{**each.source, "url": mirrors.locate(str(each.source["url"]))} for each in tool.packages]
    packages = [replace(each, source=source) for each, source in zip(tool.packages, sources, strict=True)]
    return replace(tool, packages=tuple(packages))


def _located(mirrors: IndexMirrors, package: SelectedPackage) -> SelectedPackage:
    """The package as it is fetched; one that the lock names by URL alone is in uv's cache by that URL, and stays."""
    if package.index is None or package.artifact not in {"wheel", "sdist"}:
        return package
    url = str(package.source["url"])
    named = {} if package.source.get("name") or url.endswith(f"/{package.filename}") else {"name": package.filename}
    return replace(package, source={**package.source, **named, "url": mirrors.locate(url)})
