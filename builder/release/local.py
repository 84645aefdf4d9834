"""Images of the engine on this machine as sides of a comparison."""

from __future__ import annotations

from builder.contract import INPUTS_LABEL
from builder.engine.protocol import Engine
from builder.errors import UsageError
from builder.image.inputs import ImageInputs
from builder.oci.reference import ImageRef, is_tag
from builder.release.diff import DATABASES, Side, system_packages

_HINT = "`builder build` makes images here; to compare those of a registry, set repository in the matrix"


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
