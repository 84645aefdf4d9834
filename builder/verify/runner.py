"""`BuiltImage` → `VerifiedImage`: run the checks as a CI runner would run a job.

Every check runs in a container of its own, by `sh -c`, without a network, the checkout on a volume under /builds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import tomli

from builder.contract import BUILDS, SELECTION
from builder.engine.protocol import Engine
from builder.errors import VerifyError
from builder.image.build import BuiltImage
from builder.image.render import RenderedImage
from builder.verify.checkout import Checkout, checkout_tar
from builder.verify.checks import CHECKS, SECONDS, Failed, Skipped, Subject
from builder.verify.search import BuildInputs

Verdict = Literal["passed", "failed", "skipped"]

_LANES: Final = 3  # checks at a time: they compute and wait for the engine by turns


@dataclass(frozen=True, kw_only=True)
class Check:
    """The outcome of one check: its verdict, the evidence for it, and the seconds it took."""

    name: str
    verdict: Verdict
    evidence: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class VerifiedImage:
    """An image that passed every check here. `verify` alone makes one."""

    built: BuiltImage
    checks: tuple[Check, ...]

    def __post_init__(self) -> None:
        """Refuse checks that are missing or failed."""
        if failed_checks(self.checks) or {check.name for check in self.checks} != set(CHECKS):
            raise ValueError("a verified image has every check behind it, and none of them failed")

    @property
    def rendered(self) -> RenderedImage:
        """What the image was built from."""
        return self.built.rendered


class FailedVerification(VerifyError):  # noqa: N818 - a verdict
    """An image failed checks; `checks` are all that were run."""

    def __init__(self, built: BuiltImage, checks: tuple[Check, ...]) -> None:
        evidence = "; ".join(f"{check.name}: {check.evidence}" for check in failed_checks(checks))
        super().__init__(
            f"{built.rendered.plan.cell.name}: failed verification: {evidence}",
            hint="no moving tag was put; the engine, if there is one, keeps the image as "
            f"{built.rendered.immutable_tag.familiar}",
        )
        self.checks = checks


def verify(
    built: BuiltImage,
    engine: Engine,
    *,
    checkout: Checkout,
    inputs: BuildInputs,
    on_check: Callable[[str], None] = lambda _: None,
) -> VerifiedImage:
    """Run every check on a built image; raise FailedVerification where one fails."""
    checks = run_checks(
        str(built.rendered.immutable_tag),
        engine,
        checkout=checkout,
        inputs=inputs,
        archive=built.archive,
        on_check=on_check,
    )
    if failed_checks(checks):
        raise FailedVerification(built, checks)
    return VerifiedImage(built=built, checks=checks)


def failed_checks(checks: Iterable[Check]) -> tuple[Check, ...]:
    """The checks that did not pass."""
    return tuple(check for check in checks if check.verdict == "failed")


def run_checks(
    image: str,
    engine: Engine,
    *,
    checkout: Checkout | None,
    inputs: BuildInputs,
    archive: Path | None = None,
    only: Collection[str] = (),
    on_check: Callable[[str], None] = lambda _: None,
) -> tuple[Check, ...]:
    """Run the checks, all or those named in `only`, on an image in the engine's store, several at a time.

    `archive` is the saved image where there is one already. Without a selection in `inputs`, the image's own note of it
    is taken.
    """
    with checkout_tar(checkout) as content, engine.volume(image, BUILDS, content) as volume:
        selection = inputs.selection if inputs.selection is not None else _noted_selection(engine, image, volume)
        subject = Subject(
            engine=engine,
            image=image,
            volume=volume,
            checkout=checkout,
            inputs=inputs,
            selection=selection,
            archive=archive,
        )
        names = [name for name in CHECKS if not only or name in only]
        with ThreadPoolExecutor(_LANES) as pool:
            return tuple(pool.map(lambda name: _run_check(name, subject, CHECKS[name], on_check), names))


def _run_check(name: str, subject: Subject, check: Callable[[Subject], str], on_check: Callable[[str], None]) -> Check:
    on_check(name)
    started = time.monotonic()
    verdict: Verdict = "passed"
    try:
        evidence = check(subject)
    except Failed as failure:
        verdict, evidence = "failed", str(failure)
    except Skipped as skipped:
        verdict, evidence = "skipped", str(skipped)
    return Check(name=name, verdict=verdict, evidence=evidence, seconds=round(time.monotonic() - started, 3))


def _noted_selection(engine: Engine, image: str, volume: str) -> Mapping[str, str | None]:
    ran = engine.run(image, f"cat {SELECTION}", volume=volume, target=BUILDS, workdir="/", user=None, seconds=SECONDS)
    if ran.exit_code:
        raise VerifyError(
            f"{image} has no {SELECTION}: builder did not make it",
            hint="name an image that `builder build` made",
        )
    return {package["name"]: package.get("version") for package in tomli.loads(ran.output).get("packages", ())}
