"""Verifies a built image, which becomes a `VerifiedImage`, with checks that run as a CI runner runs jobs.

Checks run in a new container, with `sh -c`, without a network, with the checkout on a volume below /builds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from builder.contract import BUILDS, SELECTION
from builder.engine.protocol import Engine
from builder.errors import VerifyError
from builder.image.build import BuiltImage
from builder.image.render import RenderedImage
from builder.layer.assemble import AssembledImage
from builder.layer.store import LayerStore
from builder.oci.manifest import ConfigSection, digest_of
from builder.oci.reference import Digest
from builder.verify.checkout import Checkout, checkout_tar
from builder.verify.checks import CHECKS, NO_SECRETS, no_secrets
from builder.verify.inside import SCRIPT, Check, Facts, Subject, expectation, run_inside
from builder.verify.script import verify_script
from builder.verify.search import BuildInputs
from builder.verify.vouch import vouched_by_layers, vouched_by_lock

Built = BuiltImage | AssembledImage


@dataclass(frozen=True, kw_only=True)
class VerifiedImage:
    """An image that passed every check in this run. Only `verify` constructs it."""

    built: Built
    checks: tuple[Check, ...]

    def __post_init__(self) -> None:
        """Raise ValueError if a check is missing or failed."""
        if failed_checks(self.checks) or {check.name for check in self.checks} != set(CHECKS):
            raise ValueError("a verified image needs a result of every check, and no failed one")

    @property
    def rendered(self) -> RenderedImage:
        """The rendered image that it was built from."""
        return self.built.rendered

    @property
    def content(self) -> AssembledImage | Path:
        """The image as it was assembled, or the archive in which the engine saved it."""
        return content_of(self.built)


class FailedVerification(VerifyError):  # noqa: N818 - a verdict
    """An image failed checks; `checks` has the results of all checks."""

    def __init__(self, built: Built, checks: tuple[Check, ...]) -> None:
        evidence = "; ".join(f"{check.name}: {check.evidence}" for check in failed_checks(checks))
        super().__init__(
            f"{built.rendered.plan.cell.name}: failed verification: {evidence}",
            hint="no moving tag was changed; the image stays in the engine, if there is one, as "
            f"{built.rendered.immutable_tag.familiar}",
        )
        self.checks = checks


def verify(
    built: Built,
    engine: Engine,
    *,
    checkout: Checkout,
    inputs: BuildInputs,
    on_check: Callable[[str], None] = lambda _: None,
) -> VerifiedImage:
    """Run every check on a built image; raise FailedVerification if one fails. `on_check` is told which have ended."""
    image = str(built.rendered.immutable_tag)
    found, config = engine.find_image_id(image), engine.find_image_config(image)
    facts = facts_of(built, image, found, config, checkout)
    if isinstance(built, AssembledImage) and found not in {str(built.digest), str(digest_of(built.config_bytes))}:
        foreign = (f"the engine has {found} under the tag, not the image that was assembled",)
        facts = replace(facts, vouched=replace(facts.vouched, faults=foreign))
    subject = Subject(engine=engine, facts=facts, inputs=inputs, content=content_of(built))
    checks = run_checks(subject, on_check=on_check)
    if failed_checks(checks):
        raise FailedVerification(built, checks)
    return VerifiedImage(built=built, checks=checks)


def facts_of(built: Built, image: str, identity: str, config: ConfigSection, checkout: Checkout) -> Facts:
    """What is known of an image that was just made: what its layers had in them when they were inspected."""
    assembled = built if isinstance(built, AssembledImage) else None
    return Facts(
        image=image, id=identity, config=config, checkout=checkout,
        vouched=vouched_by_layers(built.rendered, assembled), variables=built.rendered.plan.environment,
        user=built.rendered.plan.cell.user, family=built.rendered.plan.cell.family,
    )  # fmt: skip


def subject_of(
    image: str, engine: Engine, *, checkout: Checkout | None, inputs: BuildInputs, store: LayerStore
) -> Subject:
    """An image in the engine's store that somebody else may have made; nothing that it says is believed.

    Bytecode is compiled again unless the image is, by its digest, one that was assembled on this machine.
    Raises EngineError if there is no such image, VerifyError if builder did not build it, RegistryError if a wheel of
    the lock, with which its files are compared, cannot be fetched.
    """
    identity = engine.find_image_id(image)
    recorded = engine.read_file(image, SELECTION)
    if recorded is None:
        hint = "name an image that `builder build` built"
        raise VerifyError(f"{image} was not built by builder: it has no {SELECTION}", hint=hint)
    lock = checkout.lock if checkout else None
    facts = Facts(
        image=image, id=identity, config=engine.find_image_config(image), checkout=checkout,
        vouched=vouched_by_lock(recorded.decode(errors="replace"), f"{image}: {SELECTION}", lock, store),
        thorough=not store.has_image(Digest.from_str(identity)),
    )  # fmt: skip
    return Subject(engine=engine, facts=facts, inputs=inputs, content=None)


def content_of(built: Built) -> AssembledImage | Path:
    """The image as it was assembled, or as the engine saved it."""
    return built if isinstance(built, AssembledImage) else built.archive


def failed_checks(checks: Iterable[Check]) -> tuple[Check, ...]:
    """The checks that did not pass."""
    return tuple(check for check in checks if check.verdict == "failed")


def run_checks(
    subject: Subject, *, only: Collection[str] = (), on_check: Callable[[str], None] = lambda _: None
) -> tuple[Check, ...]:
    """Run the checks, all or only the named ones; `on_check` is told from any thread which have ended."""
    names = [name for name in CHECKS if not only or name in only]
    inside = [name for name in names if name != NO_SECRETS]

    def outside() -> Check:
        found = no_secrets(subject)
        on_check(found.name)
        return found

    with ThreadPoolExecutor(1) as pool:
        last = [pool.submit(outside)] if NO_SECRETS in names else []
        checks = _run_inside(subject, inside, on_check) if inside else ()
        return (*checks, *(future.result() for future in last))


def _run_inside(subject: Subject, names: Collection[str], on_check: Callable[[str], None]) -> tuple[Check, ...]:
    """Run checks in a container of the image."""
    script = verify_script(expectation(subject.facts, names))
    files = {SCRIPT: script.encode()}
    with (
        checkout_tar(subject.facts.checkout, files) as content,
        subject.engine.volume(subject.facts.image, BUILDS, content) as volume,
    ):
        checks = run_inside(subject, names, volume, on_check)
    limits = subject.engine.limits  # what the container had that it should not have
    return tuple(
        check.model_copy(update={"evidence": "; ".join([check.evidence, *limits])})
        if check.verdict != "skipped"
        else check
        for check in checks
    )
