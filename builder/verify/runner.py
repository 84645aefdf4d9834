"""Verifies a built image, which becomes a `VerifiedImage`, with checks that run as a CI runner runs jobs.

Checks run in new containers, with `sh -c`, without a network, with the checkout on a volume below /builds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from builder.contract import BUILDS, SELECTION
from builder.engine.protocol import Engine, NotPossibleError
from builder.errors import VerifyError
from builder.image.build import BuiltImage
from builder.image.render import RenderedImage
from builder.layer.assemble import AssembledImage
from builder.parse import Document, MalformedError, parse_toml
from builder.verify.checkout import Checkout, checkout_tar
from builder.verify.checks import CHECKS, GROUPS, OTHERS, SCRIPTS, Failed
from builder.verify.job import SECONDS, Subject, run_scripts
from builder.verify.search import BuildInputs

Built = BuiltImage | AssembledImage
Verdict = Literal["passed", "failed", "skipped"]

_LANES: Final = 3  # groups of checks at a time: they compute and wait for the engine by turns


class _Package(Document):
    name: str
    version: str | None = None


class _Selection(Document):
    """The fields of the image's pylock.toml (PEP 751) that builder reads."""

    packages: list[_Package] = Field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Check:
    """The result of a check: its verdict, the evidence, and its duration in seconds."""

    name: str
    verdict: Verdict
    evidence: str
    seconds: float


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
        return _content(self.built)


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
    """Run every check on a built image; raise FailedVerification if one fails."""
    checks = run_checks(
        str(built.rendered.immutable_tag),
        engine,
        checkout=checkout,
        inputs=inputs,
        content=_content(built),
        on_check=on_check,
    )
    if failed_checks(checks):
        raise FailedVerification(built, checks)
    return VerifiedImage(built=built, checks=checks)


def _content(built: Built) -> AssembledImage | Path:
    return built if isinstance(built, AssembledImage) else built.archive


def failed_checks(checks: Iterable[Check]) -> tuple[Check, ...]:
    """The checks that did not pass."""
    return tuple(check for check in checks if check.verdict == "failed")


def run_checks(
    image: str,
    engine: Engine,
    *,
    checkout: Checkout | None,
    inputs: BuildInputs,
    content: AssembledImage | Path | None = None,
    only: Collection[str] = (),
    on_check: Callable[[str], None] = lambda _: None,
) -> tuple[Check, ...]:
    """Run the checks, all or only the named ones, on an image in the engine's store, several at a time.

    `content` is the image as it was assembled or saved, if it was. If `inputs` has no selection, that recorded in the
    image applies; VerifyError is raised if the image has none.
    """
    with checkout_tar(checkout) as files, engine.volume(image, BUILDS, files) as volume:
        selection = inputs.selection if inputs.selection is not None else _read_selection(engine, image, volume)
        subject = Subject(
            engine=engine,
            image=image,
            volume=volume,
            checkout=checkout,
            inputs=inputs,
            selection=selection,
            content=content,
        )
        groups = [[name for name in group if not only or name in only] for group in GROUPS]
        with ThreadPoolExecutor(_LANES) as pool:
            outcomes = pool.map(lambda names: list(_run_group(names, subject, on_check)), filter(None, groups))
            return tuple(_limited(check, engine.limits) for group in outcomes for check in group)


def _limited(check: Check, limits: Sequence[str]) -> Check:
    """The check, whose evidence says what the container had that it should not have."""
    is_script = check.name != "no-secrets" and check.verdict != "skipped"
    return replace(check, evidence="; ".join([check.evidence, *limits])) if is_script else check


def _run_group(names: Sequence[str], subject: Subject, on_check: Callable[[str], None]) -> Iterator[Check]:
    """Run the checks of a group; those that are scripts in one container."""
    scripts: dict[str, str] = {}
    for name in names:
        on_check(name)
        if name in OTHERS:
            started = time.monotonic()
            yield replace(_check(name, partial(OTHERS[name], subject)), seconds=round(time.monotonic() - started, 3))
        elif SCRIPTS[name].needs_uv_lock and subject.sync is None:
            yield Check(name=name, verdict="skipped", evidence="there is no uv.lock to sync with", seconds=0.0)
        else:
            scripts[name] = SCRIPTS[name].script(subject)
    for name, result in run_scripts(subject, scripts).items() if scripts else ():
        yield replace(_check(name, partial(SCRIPTS[name].evidence, subject, result)), seconds=result.seconds)


def _check(name: str, evidence: Callable[[], str]) -> Check:
    try:
        return Check(name=name, verdict="passed", evidence=evidence(), seconds=0.0)
    except Failed as failure:
        return Check(name=name, verdict="failed", evidence=str(failure), seconds=0.0)
    except NotPossibleError as error:
        return Check(name=name, verdict="skipped", evidence=f"not possible here: {error.what}", seconds=0.0)


def _read_selection(engine: Engine, image: str, volume: str) -> Mapping[str, str | None]:
    exited = engine.run(
        image, f"cat {SELECTION}", volume=volume, target=BUILDS, workdir="/", user=None, seconds=SECONDS
    )
    hint = "name an image that `builder build` built"
    if exited.exit_code:
        raise VerifyError(f"{image} was not built by builder: it has no {SELECTION}", hint=hint)
    try:
        packages = parse_toml(_Selection, exited.output).packages
    except MalformedError as error:
        raise VerifyError(f"{image} has a malformed {SELECTION}: {error}", hint=hint) from error
    return {package.name: package.version for package in packages}
