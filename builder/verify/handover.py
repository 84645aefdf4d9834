"""Hands an image over to a job that verifies it: the image's own, with the script as an artifact of the build job."""

from __future__ import annotations

from pathlib import Path

from builder.engine.protocol import Engine
from builder.errors import UsageError
from builder.layer.assemble import AssembledImage
from builder.oci.archive import ImageArchive
from builder.oci.manifest import ConfigSection, ImageConfig
from builder.oci.reference import Digest
from builder.parse import MalformedError, parse_document, read_bytes
from builder.verify.architecture import check_architecture
from builder.verify.checkout import Checkout
from builder.verify.checks import no_secrets
from builder.verify.inside import Check, Facts, Results, Subject, expectation
from builder.verify.runner import Built, FailedVerification, content_of, facts_of, failed_checks
from builder.verify.script import verify_script
from builder.verify.search import BuildInputs

SCRIPT_NAME = "verify.sh"
RESULTS_NAME = "results.json"
DOTENV_NAME = "image.env"
IMAGE_VARIABLE = "PREBUILT_UNVERIFIED"


def check_outside(built: Built, engine: Engine, *, checkout: Checkout, inputs: BuildInputs) -> tuple[Check, ...]:
    """Make the checks that need no container of the image; raise FailedVerification if one fails."""
    subject = Subject(engine=engine, facts=_facts(built, "", checkout), inputs=inputs, content=content_of(built))
    checks = (no_secrets(subject),)
    if failed_checks(checks):
        raise FailedVerification(built, checks)
    return checks


def check_unrun(built: AssembledImage, engine: Engine, *, checkout: Checkout, inputs: BuildInputs) -> tuple[Check, ...]:
    """Make the checks of an image that nothing here runs; raise FailedVerification if one fails."""
    subject = Subject(engine=engine, facts=_facts(built, "", checkout), inputs=inputs, content=built)
    checks = (*check_architecture(built), no_secrets(subject))
    if failed_checks(checks):
        raise FailedVerification(built, checks)
    return checks


def hand_over(built: Built, digest: Digest, checkout: Checkout, folder: Path) -> None:
    """Write the script for an image that was pushed unverified, in a folder named like the cell; and its reference.

    The reference, with the digest, is a line of `image.env`, which a pipeline reads as dotenv variable. Raises
    UsageError if the folder cannot be written to.
    """
    own = folder / built.rendered.plan.cell.name
    script = verify_script(expectation(_facts(built, str(digest), checkout)))
    try:
        own.mkdir(parents=True, exist_ok=True)
        (own / SCRIPT_NAME).write_text(script, encoding="utf-8")
        reference = built.rendered.unverified_tag.with_digest(digest)
        (own / DOTENV_NAME).write_text(f"{IMAGE_VARIABLE}={reference}\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write to {own}: {error.strerror}", hint="name another folder") from error


def read_checks(folder: Path, cell: str) -> Results | None:
    """Read what a job wrote that verified a cell's image; None if it wrote nothing that can be read."""
    try:
        return parse_document(Results, read_bytes(folder / cell / RESULTS_NAME))
    except (OSError, MalformedError):
        return None


def _facts(built: Built, identity: str, checkout: Checkout) -> Facts:
    return facts_of(built, str(built.rendered.immutable_tag), identity, _config(built), checkout)


def _config(built: Built) -> ConfigSection:
    if isinstance(built, AssembledImage):
        return parse_document(ImageConfig, built.config_bytes).config or ConfigSection()
    with ImageArchive(built.archive) as archive:
        return archive.config.config or ConfigSection()
