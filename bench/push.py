"""`push`: the push of an image with gzip or zstd layers, and its pull into an empty engine."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, get_args

from bench.figures import Sample, say, table
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
        return _pulls(scratch, served, rounds)


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
        push(verified, verified.content, registries, compression, lambda _, __: None)
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
