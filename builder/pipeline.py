"""The stages in order: matrix, lock, selection, plan, context, build, verification, tags."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.utils import canonicalize_name

from builder import lock as locks
from builder import matrix as matrices
from builder.build import BuildSettings, BuiltImage, build
from builder.checkout import Checkout
from builder.engine import Engine
from builder.errors import BuilderError, BuildError, InterruptedRun, LockError
from builder.lock import Lock
from builder.matrix import Install, Matrix, Platform
from builder.plan import inputs, plan
from builder.refs import ImageRef, Mirrors
from builder.registry import Registries
from builder.render import RenderedImage, render
from builder.verify import Check, Given, examine, verify

Outcome = Literal["verified", "built", "build-failed", "verify-failed"]

LOCK_NAMES = ("uv.lock", "pylock.toml", "requirements.txt")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What somebody asked for: the files, and what was said at the terminal beside them."""

    matrix: Path | None
    lock: Path | None
    only: tuple[str, ...] = ()
    platform: str | None = None
    mirrors: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Job:
    """A wish with its files read: the cells to make, the lock they are made from, and the mirrors in force."""

    matrix: Matrix
    lock: Lock
    mirrors: Mirrors


@dataclass(frozen=True, kw_only=True)
class News:
    """Something that happened to a cell, for whoever watches: what it is doing, or how it ended."""

    cell: str
    stage: Literal["build", "verify", "done"]
    text: str


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """How a cell ended: what there is of it, and the error where something went wrong."""

    rendered: RenderedImage
    outcome: Outcome
    seconds: float
    log: Path
    built: BuiltImage | None = None
    checks: tuple[Check, ...] = ()
    error: BuilderError | None = None


def read(wish: Wish) -> Job:
    """Read the matrix and the lock; raise MatrixError, LockError or UsageError."""
    path = wish.lock or _lock_here()
    if wish.matrix is None and not Path("matrix.toml").exists():
        lock = locks.read(path, Install())
        matrix = matrices.built_in(locks.newest_python(lock))
    else:
        matrix = matrices.read(wish.matrix or Path("matrix.toml"))
        lock = locks.read(path, matrix.install)
    matrix = matrix.only(wish.only)
    if wish.platform:
        matrix = matrix.on(Platform.from_str(wish.platform))
    said = Mirrors.from_strs(wish.mirrors)
    of_environment = Mirrors.from_strs([os.environ.get("BUILDER_MIRRORS", "")])
    return Job(matrix=matrix, lock=lock, mirrors=said.over(of_environment).over(matrix.mirrors))


def checkout_for(matrix: Path | None, lock: Path | None) -> Checkout | None:
    """The checkout to verify an image with: of the lock that was named, or lies here; None where there is neither."""
    if lock is None and not any(Path(name).exists() for name in LOCK_NAMES):
        return None
    here = matrix or (Path("matrix.toml") if Path("matrix.toml").exists() else None)
    install = matrices.read(here).install if here else Install()
    return Checkout.of(locks.read(lock or _lock_here(), install))


def _lock_here() -> Path:
    for name in LOCK_NAMES:
        if Path(name).exists():
            return Path(name)
    raise LockError(f"no lock file here ({', '.join(LOCK_NAMES)})", hint="name it with --lock; `uv lock` writes one")


def render_all(job: Job) -> tuple[RenderedImage, ...]:
    """Select, resolve, plan and render every cell; nothing is built yet, so any fault of any cell shows here."""
    selections = [locks.select(job.lock, cell) for cell in job.matrix.cells]
    repository = _repository(job)
    digests = Registries(job.mirrors).resolve_all(inputs(job.matrix))
    return tuple(render(plan(job.matrix, selection, digests, repository=repository)) for selection in selections)


def _repository(job: Job) -> ImageRef:
    """The matrix's repository, else $CI_REGISTRY_IMAGE/ci, else a local name after the project."""
    if job.matrix.repository:
        return ImageRef.from_str(job.matrix.repository)
    if os.environ.get("CI_REGISTRY_IMAGE"):
        return ImageRef.from_str(f"{os.environ['CI_REGISTRY_IMAGE']}/ci")
    return ImageRef.from_str(f"{canonicalize_name(locks.project_name(job.lock)).strip('-') or 'project'}-ci")


def build_all(
    rendered: Iterable[RenderedImage],
    engine: Engine,
    settings: BuildSettings,
    *,
    checkout: Checkout | None,
    jobs: int,
    on_news: Callable[[News], None],
) -> tuple[CellResult, ...]:
    """Build, verify and tag each cell, `jobs` at a time; one cell's failure does not stop the others.

    Without a checkout the images are not verified. Raises InterruptedRun on Ctrl-C, with everything stopped.
    """
    engine.check()
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        futures = [pool.submit(_make, each, engine, settings, checkout, on_news) for each in rendered]
        try:
            pending = set(futures)
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
        except BaseException as error:
            engine.stop()
            pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(error, KeyboardInterrupt):
                raise InterruptedRun("interrupted", hint="every build is stopped; no moving tag was put") from None
            raise
    return tuple(future.result() for future in futures)


def _make(
    rendered: RenderedImage,
    engine: Engine,
    settings: BuildSettings,
    checkout: Checkout | None,
    on_news: Callable[[News], None],
) -> CellResult:
    started = time.monotonic()
    name = rendered.plan.cell.name
    built: BuiltImage | None = None
    checks: tuple[Check, ...] = ()
    outcome: Outcome = "build-failed"
    fault: BuilderError | None = None
    try:
        built = build(
            rendered,
            engine,
            settings,
            on_step=lambda text: on_news(News(cell=name, stage="build", text=text)),
        )
        outcome = "built"
        if checkout:
            outcome = "verify-failed"
            checks = _examine(built, engine, settings, checkout, on_news)
            verify(built, checks)
            outcome = "verified"
        for tag in rendered.moving_tags:
            engine.tag(str(rendered.immutable_tag), str(tag))
    except InterruptedRun:
        raise
    except BuilderError as error:
        fault = error
    except OSError as error:
        fault = BuildError(f"{name}: {error.filename or 'a file of this machine'}: {error.strerror}")
    on_news(News(cell=name, stage="done", text=outcome))
    return CellResult(
        rendered=rendered,
        outcome=outcome,
        seconds=time.monotonic() - started,
        log=settings.log_of(rendered),
        built=built,
        checks=checks,
        error=fault,
    )


def _examine(
    built: BuiltImage,
    engine: Engine,
    settings: BuildSettings,
    checkout: Checkout,
    on_news: Callable[[News], None],
) -> tuple[Check, ...]:
    plan_ = built.rendered.plan
    return examine(
        str(built.rendered.immutable_tag),
        engine,
        checkout=checkout,
        given=Given(secrets=settings.secrets, log=settings.log_of(built.rendered).read_text(encoding="utf-8")),
        selection={package.name: package.version for package in plan_.selection.packages},
        on_check=lambda check: on_news(News(cell=plan_.cell.name, stage="verify", text=check)),
    )
