"""Images of the engine on this machine: what is in them, and as sides of a comparison."""

from __future__ import annotations

from builder.contract import CELL_LABEL, INPUTS_LABEL, KEY_LABEL, SELECTION
from builder.engine.docker import DockerEngine
from builder.engine.protocol import Engine
from builder.errors import UsageError
from builder.image.inputs import ImageInputs
from builder.oci.reference import Digest, ImageRef, is_tag
from builder.release.contents import Contents, packages_of, shown_layer, weights_of
from builder.release.diff import DATABASES, Side, system_packages

_HINT = "`builder build` makes images here; to compare those of a registry, set repository in the matrix"
_SHOWN = "`builder build` makes images here; `builder ls` lists those of the registry"


def local_side(text: str, repository: ImageRef, engine: Engine) -> Side:
    """An image of the engine, by a tag of the repository or a full name; raise UsageError if builder did not build it.

    It has no layers to compare: an engine does not say what they weigh in a registry.
    """
    name = repository.with_tag(text).familiar if is_tag(text) else text
    inputs = ImageInputs.from_label((engine.find_image_config(name).labels or {}).get(INPUTS_LABEL, ""))
    if inputs is None:
        raise UsageError(f"cannot compare {name}: it was not built by this version of builder", hint=_HINT)
    found = ((path, engine.read_file(name, f"/{path}")) for path in DATABASES)
    text_of = next(((path, content.decode(errors="replace")) for path, content in found if content), None)
    return Side(name=name, inputs=inputs, layers=None, system=system_packages(*text_of) if text_of else {})


def local_contents(text: str, repository: ImageRef, engine: DockerEngine) -> Contents:
    """What is in an image of the engine, named as for `local_side`; sizes are those that it takes unpacked."""
    name = repository.with_tag(text).familiar if is_tag(text) else text
    labels = engine.find_image_config(name).labels or {}
    inputs = ImageInputs.from_label(labels.get(INPUTS_LABEL, ""))
    if inputs is None:
        raise UsageError(f"cannot show {name}: it was not built by this version of builder", hint=_SHOWN)
    layers = tuple(shown_layer(layer.title, "", layer.size) for layer in engine.find_layers(name))
    weights = weights_of(engine.read_file(name, SELECTION) or b"")
    return Contents(
        ref=ImageRef.from_str(name), digest=Digest.from_str(engine.find_image_id(name)), inputs=inputs, layers=layers,
        cell=labels.get(CELL_LABEL, inputs.cell), key=labels.get(KEY_LABEL, ""),
        packages=packages_of(layers, inputs.packages, weights), unpacked=True,
    )  # fmt: skip
