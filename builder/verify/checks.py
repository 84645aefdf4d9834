"""The checks that an image must pass: most are made inside of it, by a script; one on its layers, outside."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Final

from builder.layer.assemble import AssembledImage
from builder.oci.archive import ImageArchive
from builder.verify.inside import Check, Subject
from builder.verify.script import INSIDE
from builder.verify.search import LeakError, search_assembled, search_image

NO_SECRETS: Final = "no-secrets"
CHECKS: Final = (*INSIDE, NO_SECRETS)


def no_secrets(subject: Subject) -> Check:
    """No build secret is in a layer, the history, the config, an attestation or the build log."""
    started = time.monotonic()
    leaked = ""
    try:
        evidence = _searched(subject)
    except LeakError as leak:
        leaked = evidence = str(leak)
    seconds = round(time.monotonic() - started, 3)
    return Check(name=NO_SECRETS, verdict="failed" if leaked else "passed", evidence=evidence, seconds=seconds)


def _searched(subject: Subject) -> str:
    if not subject.inputs.places:
        return "the build had no secrets"
    if isinstance(subject.content, AssembledImage):
        return search_assembled(subject.content, subject.inputs)
    return _search_saved(subject, subject.content)


def _search_saved(subject: Subject, saved: Path | None) -> str:
    with tempfile.TemporaryDirectory(prefix="builder-") as scratch:
        path = saved or Path(scratch, "image.tar")
        if saved is None:
            subject.engine.save(subject.facts.image, path)
        with ImageArchive(path) as archive:
            return search_image(archive, subject.inputs, subject.engine.raise_if_stopped)
