"""The stages in order: matrix, lock, selection, plan, context, build, verification, tags."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Literal

from packaging.utils import canonicalize_name

from builder import lock as locks
from builder import matrix as matrices
from builder.build import BuildSettings, BuiltImage, build
from builder.checkout import Checkout
from builder.command import uninterrupted
from builder.engine import Engine
from builder.errors import BuilderError, BuildError, InterruptedRun, LockError, PublishError, UsageError, listed
from builder.gitlab import JobImage
from builder.lock import Lock
from builder.matrix import Cell, Install, Matrix, Platform
from builder.plan import inputs, plan
from builder.promote import Promotion, journal_of, moves_for, promote
from builder.publish import Compression, PublishedImage, push
from builder.refs import ImageRef, Mirrors
from builder.registry import Registries
from builder.render import RenderedImage, render
from builder.standing import Standing, State, reasons, standings
from builder.verify import Check, Given, VerifiedImage, earlier, examine, verify

Outcome = Literal["up-to-date", "built", "verified", "pushed", "build-failed", "verify-failed", "push-failed"]
Which = Literal["all", "passed", "none"]

LOCK_NAMES = ("uv.lock", "pylock.toml", "requirements.txt")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What somebody asked for: the files, and what was said at the terminal beside them."""

    matrix: Path | None
    lock: Path | None
    only: tuple[str, ...] = ()
    platform: str | None = None
    mirrors: tuple[str, ...] = ()
    branch: str | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """The options by which another run of builder is asked for the same, but for the choice of cells."""
        said = [
            ("--file", self.matrix), ("--lock", self.lock), ("--platform", self.platform), ("--branch", self.branch),
            *(("--mirror", mirror) for mirror in self.mirrors),
        ]  # fmt: skip
        return tuple(word for option, value in said if value for word in (option, str(value)))


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
    stage: Literal["build", "verify", "push", "done"]
    text: str


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """How a cell ended: what there is of it, and the error where something went wrong."""

    rendered: RenderedImage
    outcome: Outcome
    seconds: float
    log: Path | None
    built: BuiltImage | None = None
    checks: tuple[Check, ...] = ()
    published: PublishedImage | None = None
    error: BuilderError | None = None


@dataclass(frozen=True, kw_only=True)
class Publication:
    """How a run that pushes ended: each cell, and the moves of the tags, None where none was due or allowed."""

    results: tuple[CellResult, ...]
    promotion: Promotion | None


def read(wish: Wish) -> Job:
    """Read the matrix and the lock; raise MatrixError, LockError or UsageError."""
    path = wish.lock or _lock_here()
    file = _matrix_file(wish)
    lock = locks.read(path, file.install if file else Install())
    matrix = _as_wished(file or matrices.built_in(locks.newest_python(lock)), wish)
    return Job(matrix=matrix, lock=lock, mirrors=_mirrors(matrix, wish))


def read_matrix(wish: Wish) -> tuple[Matrix, Mirrors]:
    """Read the matrix alone, and the mirrors in force; where there is no matrix, the lock says which is meant."""
    file = _matrix_file(wish)
    if file is None:
        job = read(wish)
        return job.matrix, job.mirrors
    matrix = _as_wished(file, wish)
    return matrix, _mirrors(matrix, wish)


def _matrix_file(wish: Wish) -> Matrix | None:
    if wish.matrix is None and not Path("matrix.toml").exists():
        return None
    return matrices.read(wish.matrix or Path("matrix.toml"))


def _as_wished(matrix: Matrix, wish: Wish) -> Matrix:
    if wish.branch is not None:
        matrix = matrix.on_branch(wish.branch)
    matrix = matrix.only(wish.only)
    return matrix.on(Platform.from_str(wish.platform)) if wish.platform else matrix


def _mirrors(matrix: Matrix, wish: Wish) -> Mirrors:
    said = Mirrors.from_strs(wish.mirrors)
    of_environment = Mirrors.from_strs([os.environ.get("BUILDER_MIRRORS", "")])
    return said.over(of_environment).over(matrix.mirrors)


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
    digests = Registries(job.mirrors, insecure=job.matrix.insecure).resolve_all(inputs(job.matrix))
    day = today()
    return tuple(
        render(plan(job.matrix, selection, digests, repository=repository, today=day)) for selection in selections
    )


def today() -> date:
    """The day that system packages are refreshed by: that of SOURCE_DATE_EPOCH where set (UTC)."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    now = datetime.fromtimestamp(int(epoch), timezone.utc) if epoch.isdigit() else datetime.now(timezone.utc)
    return now.date()


def published_repository(matrix: Matrix) -> ImageRef | None:
    """Where the images are pushed: the matrix's repository, else $CI_REGISTRY_IMAGE/ci; None where neither is set."""
    if matrix.repository:
        return ImageRef.from_str(matrix.repository)
    if os.environ.get("CI_REGISTRY_IMAGE"):
        return ImageRef.from_str(f"{os.environ['CI_REGISTRY_IMAGE']}/ci")
    return None


def repository_for(purpose: str, matrix: Matrix) -> ImageRef:
    """Where the images are pushed; raise UsageError, which names the purpose, where they are pushed nowhere."""
    repository = published_repository(matrix)
    if repository is None:
        raise UsageError(
            f"there is no repository to {purpose}",
            hint='name one in the matrix (repository = "registry.example.com/acme/ci") or set CI_REGISTRY_IMAGE',
        )
    return repository


def _repository(job: Job) -> ImageRef:
    """The repository of the images, which has a local name after the project where they are pushed nowhere."""
    return published_repository(job.matrix) or ImageRef.from_str(_local_name(job))


def _local_name(job: Job) -> str:
    name = canonicalize_name(locks.project_name(job.lock))
    return f"{re.sub('[^a-z0-9-]', '', name).strip('-') or 'project'}-ci"


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What cells are made with: `checkout` None leaves images unverified, `send` publishes what was verified."""

    engine: Engine
    settings: BuildSettings
    checkout: Checkout | None
    on_news: Callable[[News], None]
    send: Callable[[VerifiedImage, Engine], PublishedImage] | None = None


def build_all(rendered: Iterable[RenderedImage], workshop: Workshop, *, jobs: int) -> tuple[CellResult, ...]:
    """Build, verify, tag and send each cell, `jobs` at a time; one cell's failure does not stop the others.

    Raises InterruptedRun on Ctrl-C, with everything stopped.
    """
    workshop.engine.check()
    if workshop.settings.attested:
        workshop.engine.check_attestations()
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        futures = [pool.submit(_make, each, workshop) for each in rendered]
        try:
            pending = set(futures)
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
        except BaseException as error:
            workshop.engine.stop()
            pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(error, KeyboardInterrupt):
                raise InterruptedRun("interrupted", hint="every build is stopped; no moving tag was put") from None
            raise
    return tuple(future.result() for future in futures)


def _make(rendered: RenderedImage, workshop: Workshop) -> CellResult:
    name = rendered.plan.cell.name
    result = CellResult(rendered=rendered, outcome="build-failed", seconds=0.0, log=workshop.settings.log_of(rendered))
    started = time.monotonic()
    try:
        for reached in _stages(result, workshop):
            result = reached
    except InterruptedRun:
        raise
    except BuilderError as error:
        result = replace(result, error=error)
    except OSError as error:
        fault = BuildError(f"{name}: {error.filename or 'a file of this machine'}: {error.strerror}")
        result = replace(result, error=fault)
    workshop.on_news(News(cell=name, stage="done", text=result.outcome))
    return replace(result, seconds=time.monotonic() - started)


def _stages(result: CellResult, workshop: Workshop) -> Iterator[CellResult]:
    """Carry a cell through its stages; yield before each what its result is should that stage fail."""
    rendered, name = result.rendered, result.rendered.plan.cell.name
    yield result
    built = build(
        rendered,
        workshop.engine,
        workshop.settings,
        on_step=lambda text: workshop.on_news(News(cell=name, stage="build", text=text)),
    )
    verified: VerifiedImage | None = None
    result = replace(result, built=built, outcome="built")
    if workshop.checkout:
        yield replace(result, outcome="verify-failed")
        checks = _examine(built, workshop, workshop.checkout)
        result = replace(result, checks=checks, outcome="verify-failed")
        yield result
        verified = verify(built, checks)
        result = replace(result, outcome="verified")
    yield result
    for tag in rendered.moving_tags:
        workshop.engine.tag(str(rendered.immutable_tag), str(tag))
    if workshop.send and verified:
        yield replace(result, outcome="push-failed")
        workshop.on_news(News(cell=name, stage="push", text=rendered.immutable_tag.familiar))
        yield replace(result, published=workshop.send(verified, workshop.engine), outcome="pushed")


def _examine(built: BuiltImage, workshop: Workshop, checkout: Checkout) -> tuple[Check, ...]:
    plan_ = built.rendered.plan
    log = workshop.settings.log_of(built.rendered)
    return examine(
        str(built.rendered.immutable_tag),
        workshop.engine,
        checkout=checkout,
        given=Given(secrets=workshop.settings.secrets, log=log.read_text(encoding="utf-8")),
        selection={package.name: package.version for package in plan_.selection.packages},
        on_check=lambda check: workshop.on_news(News(cell=plan_.cell.name, stage="verify", text=check)),
    )


def publish_all(
    standings: Sequence[Standing],
    workshop: Callable[[], Workshop],
    registries: Registries,
    *,
    jobs: int,
    which: Which,
) -> Publication:
    """Build and push the cells that the registry lacks, then move the tags, as `which` says of failed cells.

    The workshop is not opened, and no engine asked, where every cell is up to date. Raises PublishError where tags
    stand in part or in conflict.
    """
    todo = [each.rendered for each in standings if each.digest is None]
    made = {each.rendered.key: each for each in build_all(todo, workshop(), jobs=jobs)} if todo else {}
    results = tuple(made.get(each.rendered.key) or _found(each) for each in standings)
    promotion = None
    if which == "passed" or (which == "all" and all(each.error is None for each in results)):
        published = [each.published for each in results if each.published]
        promotion = promote_all(published, standings, registries)
    return Publication(results=results, promotion=promotion)


def promote_all(
    images: Sequence[PublishedImage], standings: Sequence[Standing], registries: Registries
) -> Promotion | None:
    """Move the images' moving tags, all or none; None where each stands already."""
    moves = moves_for(images, {name: digest for each in standings for name, digest in each.moving.items()})
    if not moves:
        return None
    with uninterrupted():  # a second or two, after which all tags are new
        return promote(journal_for(images[0].rendered), moves, registries)


def journal_for(rendered: RenderedImage) -> ImageRef:
    """The journal in which promotions of the image are noted."""
    return journal_of(rendered.plan.repository, rendered.plan.branch)


def _found(standing: Standing) -> CellResult:
    assert standing.digest  # noqa: S101 - asked by publish_all
    return CellResult(
        rendered=standing.rendered,
        outcome="up-to-date",
        seconds=0.0,
        log=None,
        published=PublishedImage(rendered=standing.rendered, digest=standing.digest),
    )


@dataclass(frozen=True, kw_only=True)
class Status:
    """What is to be done for a cell, and why."""

    state: State
    reasons: tuple[str, ...]


def explain(job: Job, rendered: Sequence[RenderedImage]) -> dict[str, Status]:
    """Say for each cell, by name, how it stands at the registry; nothing where the images are pushed nowhere."""
    if published_repository(job.matrix) is None:
        return {}
    registries = Registries(job.mirrors, insecure=job.matrix.insecure)
    return {
        each.rendered.plan.cell.name: Status(state=each.state, reasons=reasons(each, registries))
        for each in standings(rendered, registries)
    }


def job_images(matrix: Matrix, repository: ImageRef, registries: Registries) -> tuple[JobImage, ...]:
    """The images that the moving tags of the cells name now; raise PublishError that names the cells without one."""
    tags = {cell: repository.with_tag(matrix.moving_tags(cell)[0]) for cell in matrix.cells}
    found = dict(zip(tags, registries.each(registries.find, tags.values()), strict=True))
    missing = [tags[cell].familiar for cell, digest in found.items() if digest is None]
    if missing:
        raise PublishError(
            f"not published: {listed(missing)}",
            hint="`builder build --push` publishes them; --only leaves cells out",
        )
    return tuple(JobImage(cell=cell, tag=tags[cell], digest=digest) for cell, digest in found.items() if digest)


def default_cell(matrix: Matrix) -> Cell:
    """The cell for jobs that ask for none: that of the alias `latest`, or the newest Python on the first base."""
    latest = dict(matrix.aliases).get("latest")
    first = matrix.cells[0].base
    return max(
        matrix.cells,
        key=lambda cell: (cell.name == latest, cell.base == first, [int(part) for part in cell.python.split(".")]),
    )


def push_earlier(
    standing: Sequence[Standing], registries: Registries, engine: Engine | None, compression: Compression
) -> Publication:
    """Push what was built and verified earlier, and move the tags of all cells; without an engine, only the latter.

    Raises PublishError where a cell is neither in the registry nor, verified, in the engine.
    """
    images, missing = [], []
    for each in standing:
        if each.digest is not None:
            images.append(PublishedImage(rendered=each.rendered, digest=each.digest))
        elif engine is not None and (verified := earlier(each.rendered, engine)):
            images.append(push(verified, engine, registries, compression))
        else:
            missing.append(each.rendered.immutable_tag.familiar)
    if missing:
        where = "in the registry" if engine is None else "in the registry or, verified, in the engine"
        raise PublishError(
            f"not {where}: {listed(missing)}; no tag was moved", hint="`builder build --push` makes what is missing"
        )
    results = tuple(
        CellResult(rendered=image.rendered, outcome="pushed", seconds=0.0, log=None, published=image)
        for image in images
    )
    return Publication(results=results, promotion=promote_all(images, standing, registries))
