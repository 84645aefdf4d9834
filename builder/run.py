"""Runs the stages in order: select, resolve, plan, render, build, verify, push, promote."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from builder.disk import failure_text
from builder.engine.protocol import Engine
from builder.errors import BuilderError, BuildError, EngineError, InterruptedRun, PublishError
from builder.image.build import BuildSettings, build
from builder.image.build_log import bytes_done
from builder.image.plan import input_images, plan_image
from builder.image.render import RenderedImage, render
from builder.layer.assemble import AssembledImage
from builder.layer.build import CellWork, LayeredBuild
from builder.lock.select import select_all
from builder.lock.tool import resolve_tools
from builder.oci.manifest import digest_of
from builder.oci.reference import ImageRef
from builder.oci.registry import Registries
from builder.release.promote import PlannedImage, Promotable
from builder.release.publisher import Publisher
from builder.release.sent import OnSent
from builder.request import Project, today
from builder.stopwatch import Stopwatch
from builder.verify.checkout import Checkout
from builder.verify.checks import CHECKS
from builder.verify.handover import check_outside, check_unrun, hand_over
from builder.verify.inside import Check
from builder.verify.record import EngineImage, find_verified, record_verified
from builder.verify.runner import Built, FailedVerification, VerifiedImage, verify
from builder.verify.search import BuildInputs

Outcome = Literal[
    "planned", "up-to-date", "built", "verified", "unverified", "pushed", "handed-over", "build-failed",
    "verify-failed", "push-failed",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ProgressEvent:
    """A step of a cell that began, or its outcome."""

    cell: str
    stage: Literal["build", "verify", "push", "done"]
    text: str


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """The outcome of a cell, its results so far, and the error of the stage that failed.

    `seconds` is its duration, `watch` where they went; `log` is the path of the build log.
    """

    rendered: RenderedImage
    outcome: Outcome
    seconds: float = 0.0
    watch: Stopwatch = field(default_factory=Stopwatch)
    log: Path | None = None
    built: Built | None = None
    made_by: str = ""  # what made its layers, and why that; empty if nothing was made
    verified: VerifiedImage | EngineImage | None = None
    handed_over: ImageRef | None = None  # the tag and digest of an image that a job is to verify
    checks: tuple[Check, ...] = ()
    published: Promotable | PlannedImage | None = None
    error: BuilderError | None = None


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """The environment of a run. Without `checkouts` images are not verified, without a `publisher` not pushed.

    `checkouts` are those of the locks, by profile. With `later`, a folder, images are pushed unverified, and what jobs
    need that verify them is written there. `records` is the folder with records of earlier verifications; with `reuse`,
    those images are not built again.
    """

    engine: Engine
    records: Path
    settings: BuildSettings
    layered: LayeredBuild
    checkouts: Mapping[str, Checkout]
    on_event: Callable[[ProgressEvent], None]
    publisher: Publisher | None = None
    reuse: bool = True
    later: Path | None = None
    made_by: str = ""  # which maker, and why, for users


def plan_images(project: Project, registries: Registries) -> tuple[RenderedImage, ...]:
    """Select, resolve, plan and render every cell, so that an error in any cell is raised before the first build."""
    selections = select_all(project.locked_cells)
    tools = resolve_tools(project.matrix.tools, project.locked_cells, project.matrix.index_mirrors)
    repository = project.image_repository
    digests = registries.resolve_all(input_images(project.matrix))
    day = today()
    return tuple(
        render(
            plan_image(project.matrix, replace(each, tools=tools[each.cell]), digests, repository=repository, today=day)
        )
        for each in selections
    )


def plan_cells(rendered: Iterable[RenderedImage]) -> tuple[CellResult, ...]:
    """Return results as `make_cells` does, but without a build: for a dry run."""
    return tuple(
        CellResult(rendered=image, outcome="planned", published=PlannedImage(rendered=image)) for image in rendered
    )


def make_cells(rendered: Iterable[RenderedImage], context: RunContext, *, jobs: int) -> tuple[CellResult, ...]:
    """Take each cell through its stages, `jobs` at a time; if one fails, the others continue.

    Raises InterruptedRun on Ctrl-C, after it has stopped every process.
    """
    if context.later is None or context.settings.attested:  # else layers are made and sent, and nothing runs
        _check_engine(context)
    if context.settings.attested:
        context.engine.check_attestations()
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        futures = [pool.submit(_make_cell, image, context) for image in rendered]
        try:
            pending = set(futures)
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
        except BaseException as error:
            context.engine.stop()
            pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(error, KeyboardInterrupt):
                raise InterruptedRun(
                    "interrupted", hint="all builds were stopped, and no moving tag was changed"
                ) from None
            raise
    return tuple(future.result() for future in futures)


def _check_engine(context: RunContext) -> None:
    try:
        context.engine.check()
    except EngineError as error:
        if context.publisher:
            raise
        hint = f"{error.hint}; with a registry, `builder build --push` needs none on Linux"
        raise EngineError(error.what, hint=hint) from error


def _make_cell(rendered: RenderedImage, context: RunContext) -> CellResult:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="builder-") as scratch:
        result = _run_stages(rendered, context, Path(scratch))
    context.on_event(ProgressEvent(cell=rendered.plan.cell.name, stage="done", text=result.outcome))
    log = result.log if result.log and result.log.exists() else None  # nothing is logged if nothing was made
    return replace(result, seconds=time.monotonic() - started, log=log)


def _run_stages(rendered: RenderedImage, context: RunContext, scratch: Path) -> CellResult:
    result = CellResult(rendered=rendered, outcome="planned", log=context.settings.log_of(rendered))
    for failure, stage in _WITHOUT_ENGINE if context.later else _STAGES:
        try:
            result = stage(result, context, scratch)
        except InterruptedRun:
            raise
        except FailedVerification as error:
            result = replace(result, outcome=failure, checks=error.checks, error=error)
        except BuilderError as error:
            result = replace(result, outcome=failure, error=error)
        except OSError as error:
            what = f"{rendered.plan.cell.name}: {failure_text(error)}"
            result = replace(result, outcome=failure, error=BuildError(what))
        if result.error:
            break
    return result


def _reuse(result: CellResult, context: RunContext, _: Path) -> CellResult:
    if not context.reuse or not context.checkouts:
        return result
    image = find_verified(result.rendered, context.engine, context.records)
    return replace(result, verified=image, outcome="up-to-date") if image else result


def _build(result: CellResult, context: RunContext, scratch: Path) -> CellResult:
    if result.verified:
        return result
    cell = result.rendered.plan.cell.name

    def on_step(text: str) -> None:
        context.on_event(ProgressEvent(cell=cell, stage="build", text=text))

    if context.settings.attested:  # only BuildKit attests, and only what it builds as a whole
        with result.watch.measure("build"):
            built: Built = build(result.rendered, context.engine, context.settings, scratch, on_step=on_step)
    else:
        work = CellWork(
            rendered=result.rendered, scratch=scratch, watch=result.watch, on_step=on_step,
            upload=context.publisher.upload if context.publisher else None,
        )  # fmt: skip
        built = context.layered.build(work, None if context.later else context.engine)
    return replace(result, built=built, made_by=context.made_by if built.made else "", outcome="built")


def _verify(result: CellResult, context: RunContext, _: Path) -> CellResult:
    checkout = context.checkouts.get(result.rendered.plan.cell.profile)
    if checkout is None or result.built is None or result.verified:
        return result
    cell = result.rendered.plan.cell.name
    if isinstance(result.built, AssembledImage) and not context.engine.runs(result.rendered.plan.cell.platform):
        inputs = _inputs(result, result.built, context)
        with result.watch.measure("verify"):
            checks = check_unrun(result.built, context.engine, checkout=checkout, inputs=inputs)
        return replace(result, checks=checks, outcome="unverified")
    ended: set[str] = set()

    def tell(*names: str) -> None:
        ended.update(names)
        context.on_event(ProgressEvent(cell=cell, stage="verify", text=f"checks {len(ended)}/{len(CHECKS)}"))

    tell()
    with result.watch.measure("verify"):
        inputs = _inputs(result, result.built, context)
        verified = verify(result.built, context.engine, checkout=checkout, inputs=inputs, on_check=tell)
    record_verified(verified, context.engine, context.records)
    if isinstance(verified.content, AssembledImage):
        context.layered.prove(verified.content)
    return replace(result, verified=verified, checks=verified.checks, outcome="verified")


def _check_outside(result: CellResult, context: RunContext, _: Path) -> CellResult:
    checkout = context.checkouts.get(result.rendered.plan.cell.profile)
    if checkout is None or result.built is None:
        return result
    inputs = _inputs(result, result.built, context)
    return replace(result, checks=check_outside(result.built, context.engine, checkout=checkout, inputs=inputs))


def _inputs(result: CellResult, built: Built, context: RunContext) -> BuildInputs:
    log = context.settings.log_of(result.rendered)
    return BuildInputs(
        secrets=context.settings.secrets,
        proxy_logins=context.settings.proxy_logins,
        packages=result.rendered.plan.selection.downloads,
        public=result.rendered.plan.ca,
        artifacts=context.layered.factory.artifacts,
        log=log.read_text(encoding="utf-8") if built.made and log.exists() else "",
    )


def _tag(result: CellResult, context: RunContext, _: Path) -> CellResult:
    for tag in () if result.outcome == "unverified" else result.rendered.moving_tags:
        context.engine.tag(str(result.rendered.immutable_tag), str(tag))
    return result


def _push(result: CellResult, context: RunContext, scratch: Path) -> CellResult:
    if result.outcome == "unverified" and result.built:
        return _push_unverified(result, result.built, context)
    if context.publisher is None or result.verified is None:
        return result
    tag = result.rendered.immutable_tag.familiar
    context.on_event(ProgressEvent(cell=result.rendered.plan.cell.name, stage="push", text=tag))
    if isinstance(result.verified, EngineImage):
        content = engine_content(result.verified, context.engine, context.layered, scratch)
    else:
        content = result.verified.content
    with result.watch.measure("send"):
        published = context.publisher.push(result.verified, content, _sent(result, context, tag))
    return replace(result, published=published, outcome="pushed")


def _sent(result: CellResult, context: RunContext, tag: str) -> OnSent:
    """What tells how many bytes of an image the registry has."""

    def tell(done: int, total: int) -> None:
        text = f"{tag} {bytes_done(done, total)}"
        context.on_event(ProgressEvent(cell=result.rendered.plan.cell.name, stage="push", text=text))

    return tell


def _push_unverified(result: CellResult, built: Built, context: RunContext) -> CellResult:
    """Push what nothing here runs under the tag that says so; the error says who can verify it."""
    cell, publisher = result.rendered.plan.cell, context.publisher
    what = f"{cell.name} was made, but not verified: nothing here runs programs for {cell.platform}"
    if publisher is None:
        hint = "qemu-user-static with binfmt lets an engine emulate it; --no-verify does without"
        return replace(result, error=EngineError(what, hint=hint))
    ref = result.rendered.unverified_tag
    with result.watch.measure("send"):
        digest = publisher.push_unverified(built, _sent(result, context, ref.familiar))
    hint = "verify it in a job on such a runner: --verify-later, or `builder ci pipeline`, which does that"
    error = PublishError(f"{what}. It is pushed as {ref.familiar}; no other tag names it", hint=hint)
    return replace(result, handed_over=ref.with_digest(digest) if digest else None, error=error)


def _hand_over(result: CellResult, context: RunContext, _: Path) -> CellResult:
    checkout = context.checkouts.get(result.rendered.plan.cell.profile)
    if not (context.later and checkout and context.publisher and result.built):
        return result
    with result.watch.measure("send"):
        tag = result.rendered.unverified_tag.familiar
        digest = context.publisher.push_unverified(result.built, _sent(result, context, tag))
    if digest is None:
        return result
    hand_over(result.built, digest, checkout, context.later)
    return replace(result, handed_over=result.rendered.unverified_tag.with_digest(digest), outcome="handed-over")


def engine_content(image: EngineImage, engine: Engine, layered: LayeredBuild, scratch: Path) -> AssembledImage | Path:
    """The image as it was assembled, if its layers are still on this machine; else the engine saves it."""
    assembled = layered.find(image.rendered)
    if assembled and image.digest in {assembled.digest, digest_of(assembled.config_bytes)}:
        return assembled
    saved = scratch / "image.tar"
    engine.save(str(image.rendered.immutable_tag), saved)
    return saved


Stage = Callable[[CellResult, RunContext, Path], CellResult]
# Each stage, after the outcome of a cell in which it fails.
_STAGES: Final[tuple[tuple[Outcome, Stage], ...]] = (
    ("build-failed", _reuse),
    ("build-failed", _build),
    ("verify-failed", _verify),
    ("build-failed", _tag),
    ("push-failed", _push),
)
# For images that a later job verifies.
_WITHOUT_ENGINE: Final[tuple[tuple[Outcome, Stage], ...]] = (
    ("build-failed", _build),
    ("verify-failed", _check_outside),
    ("push-failed", _hand_over),
)
