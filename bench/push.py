"""`push`: a run without changes, and the pull of an image with gzip or zstd layers into an empty engine."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, get_args

import tomli_w

from bench.figures import Sample, judged, say, table
from bench.servers import Registry, empty_engine, registry
from bench.subject import Subject, remove_images, subject
from builder.errors import BuilderError
from builder.image.build import build
from builder.layer.plan import Compression
from builder.oci.reference import ImageRef, Mirrors
from builder.oci.registry import Registries
from builder.process import run
from builder.release.publish import push
from builder.verify.runner import verify
from builder.verify.search import BuildInputs

SECONDS: Final = 3.0  # a run of eight cells without changes

_BUILDER: Final = str(Path(sys.executable).with_name("builder"))  # the console script, as users start it
_PYTHONS: Final = ("3.11", "3.13")
_DEBIAN: Final = {"image": "docker.io/library/python:{python}-slim-bookworm", "family": "debian"}
_ALPINE: Final = {"image": "docker.io/library/python:{python}-alpine", "family": "alpine"}
_BASES: Final = {"slim": _DEBIAN, "slim-too": _DEBIAN, "alpine": _ALPINE, "alpine-too": _ALPINE}
_LOCK: Final = {"lock-version": "1.0", "created-by": "bench", "packages": []}
_NIGHTS: Final[Mapping[str, tuple[str, ...]]] = {
    "eight cells": (),
    "one of them, --only": ("--only", "python=3.13,base=slim"),
}
_PLACES: Final = {"store on disk": False, "store in memory": True}  # name: whether in memory
_NOTES: Final = (
    "a pull downloads and unpacks all layers, including the base's, into an engine without images",
    "the registry is on this machine: over a network, the size matters more",
)


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """The image in the registry: the bytes of its layers, and the seconds to save, compress and upload it, once."""

    ref: ImageRef
    size: int
    seconds: float


def main(scratch: Path, rounds: int) -> str:
    """Measure both with a separate registry, and return the report."""
    with registry(scratch / "registry") as served:
        return f"{_nights(scratch, served, rounds)}\n\n{_pulls(scratch, served, rounds)}"


def _nights(scratch: Path, served: Registry, rounds: int) -> str:
    folder = _project(scratch, served)
    say("pushing eight small images")
    try:
        _night(folder, (), dict(os.environ))
    finally:
        remove_images(f"{served.host}/nights")
    no_engine = {**os.environ, "DOCKER_HOST": f"unix://{scratch}/no-engine.sock"}
    say(f"timing builder build --push without changes, {rounds} rounds")
    taken: dict[str, list[float]] = {name: [] for name in _NIGHTS}
    asked: dict[str, int] = {}
    for _ in range(rounds):
        for name, options in _NIGHTS.items():
            before, started = served.requests(), time.monotonic()
            outcomes = _night(folder, options, no_engine)
            taken[name].append(time.monotonic() - started)
            asked[name] = served.requests() - before
            if outcomes != {"up-to-date"}:
                raise BuilderError(f"a run without changes ended with: {', '.join(sorted(outcomes))}")
    return _nights_report({name: Sample(values=tuple(values)) for name, values in taken.items()}, asked, rounds)


def _nights_report(taken: Mapping[str, Sample], asked: Mapping[str, int], rounds: int) -> str:
    rows = [(name, *sample.cells, str(asked[name])) for name, sample in taken.items()]
    seconds = taken["eight cells"].median
    return "\n".join(
        [
            f"push: `builder build --push` without changes and without an engine, {rounds} rounds",
            table(("", "median", "range", "requests"), rows),
            "  requests: to the registry of the images; one more per base and uv goes to theirs",
            f"  target: eight cells under {SECONDS:g} s: {seconds:.2f} s, {judged(seconds < SECONDS)}",
        ]
    )


def _project(scratch: Path, served: Registry) -> Path:
    """A folder with a matrix of eight cells, on four names for two bases, and a lock without packages."""
    folder = scratch / "nights"
    folder.mkdir()
    matrix = {"repository": f"{served.host}/nights", "python": _PYTHONS, "base": list(_BASES), "bases": _BASES}
    matrix["uv"] = "0.13.8"  # as in the example's matrix
    (folder / "matrix.toml").write_text(tomli_w.dumps(matrix), encoding="utf-8")
    (folder / "pylock.toml").write_text(tomli_w.dumps(_LOCK), encoding="utf-8")
    return folder


def _night(folder: Path, options: Sequence[str], env: Mapping[str, str]) -> set[str]:
    """Build and push what has changed; return the outcomes of the cells."""
    argv = [_BUILDER, "build", "--push", "--json", "--log-dir", str(folder / "logs"), *options]
    done = run(argv, cwd=folder, env=env).check("builder build --push")
    return {cell["outcome"] for cell in json.loads(done.stdout)["cells"]}


def _pulls(scratch: Path, served: Registry, rounds: int) -> str:
    made = subject(scratch)
    pushed: dict[str, Pushed] = {name: _pushed(made, served, name) for name in get_args(Compression)}
    rows, ratios = [], []
    for place, in_memory in _PLACES.items():
        with empty_engine(scratch / place.replace(" ", "-"), in_memory=in_memory) as address:
            store = run(["docker", "--host", address, "info", "--format", "{{.Driver}}"]).stdout.strip()
            taken = _pull_rounds({name: each.ref for name, each in pushed.items()}, address, rounds)
        rows += [(f"{name}, {place} ({store})", *taken[name].cells) for name in pushed]
        ratios.append(f"{place}: gzip takes {taken['gzip'].median / taken['zstd'].median:.2f} times as long as zstd")
    return "\n".join([*_sizes_report(made, pushed), *_pulls_report(rows, ratios, rounds)])


def _sizes_report(made: Subject, pushed: Mapping[str, Pushed]) -> Iterator[str]:
    yield f"push: {made.rendered.plan.cell.name} of the example in the registry, base included"
    rows = [
        (name, f"{each.size:,}", f"{each.size / pushed['gzip'].size:.3f}", f"{each.seconds:.1f} s")
        for name, each in pushed.items()
    ]
    yield table(("", "bytes of all layers", "ratio", "push, once"), rows)


def _pulls_report(rows: Sequence[Sequence[str]], ratios: Sequence[str], rounds: int) -> Iterator[str]:
    unpacker = "with" if shutil.which("unpigz") or shutil.which("igzip") else "without"
    yield f"\npush: `docker pull` of that image from nothing, {rounds} rounds after a warm-up"
    yield table(("", "median", "range"), rows)
    yield from (f"  {each}" for each in (*ratios, *_NOTES, f"gzip is unpacked {unpacker} unpigz or igzip"))


def _pushed(made: Subject, served: Registry, compression: Compression) -> Pushed:
    """Build, verify and push the example's image as a run would."""
    repository = ImageRef.from_str(f"{served.host}/{compression}")
    rendered = replace(made.rendered, plan=replace(made.rendered.plan, repository=repository))
    registries = Registries(Mirrors.from_strs([]))
    say(f"building the image and pushing it with {compression}")
    try:
        built = build(rendered, made.engine, made.settings, made.project.parent, on_step=lambda _: None)
        inputs = BuildInputs(secrets=made.settings.secrets)
        verified = verify(built, made.engine, checkout=made.checkout, inputs=inputs)
        started = time.monotonic()
        push(verified, verified.content, registries, compression)
        seconds = time.monotonic() - started
    finally:
        remove_images(str(repository))
    manifest = registries.fetch_manifest(rendered.immutable_tag)
    assert manifest is not None, "push has read it back"
    size = sum(layer["size"] for layer in manifest.table["layers"])
    return Pushed(ref=rendered.immutable_tag, size=size, seconds=seconds)


def _pull_rounds(refs: Mapping[str, ImageRef], address: str, rounds: int) -> dict[str, Sample]:
    taken: dict[str, list[float]] = {name: [] for name in refs}
    for number in range(rounds + 1):  # round 0 is a warm-up
        # In the reverse order each round, so that no variant always comes second.
        for name in list(refs)[:: -1 if number % 2 else 1]:
            seconds = _pull(str(refs[name]), address)
            say(f"pulled {name} in {seconds:.1f} s, round {number} of {rounds}")
            if number:
                taken[name].append(seconds)
    return {name: Sample(values=tuple(values)) for name, values in taken.items()}


def _pull(image: str, address: str) -> float:
    """Pull into an empty engine and empty it again; raise BuilderError if it was not empty."""
    docker = ("docker", "--host", address)
    os.sync()  # do not wait for the writes of the pull before
    started = time.monotonic()
    done = run([*docker, "pull", image]).check("docker pull")
    seconds = time.monotonic() - started
    run([*docker, "image", "rm", "--force", image]).check("docker image rm")
    if "Already exists" in done.stdout or run([*docker, "image", "ls", "--quiet", "--all"]).stdout:
        raise BuilderError(f"the engine at {address} was not empty", hint=done.stdout)
    return seconds
