"""The command line, the only `import click`: reads arguments, prints and exits; the stages do the work."""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from builder import __version__
from builder.errors import (
    BuilderError,
    BuildError,
    CommandError,
    InterruptedRun,
    RegistryError,
    UsageError,
    VerifyError,
    near,
)

if TYPE_CHECKING:
    from builder.buildx import Buildx
    from builder.pipeline import Job, Publication, Wish
    from builder.render import RenderedImage
    from builder.standing import Standing

_Command = TypeVar("_Command", bound=Callable[..., Any])
_PATH = click.Path(path_type=Path, readable=False)  # the readers say more of what is wrong
_QUIET = "builder.quiet"


def _logs() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "builder" / "logs"


def _talking(command: _Command) -> _Command:
    """Add -v and -q, which may stand before or after the command's name."""
    for option in (
        click.option("-q", "--quiet", is_flag=True, expose_value=False, callback=_hush,
                     help="Show nothing but the product and errors."),
        click.option("-v", "--verbose", is_flag=True, expose_value=False, callback=_explain,
                     help="Show every command that is started."),
    ):  # fmt: skip
        command = option(command)
    return command


def _hush(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    context.meta[_QUIET] = context.meta.get(_QUIET, False) or wanted


def _explain(_: click.Context, __: click.Parameter, wanted: bool) -> None:
    if wanted:
        logging.basicConfig(format="%(message)s")
        logging.getLogger("builder").setLevel(logging.DEBUG)


def _is_quiet() -> bool:
    return bool(click.get_current_context().meta[_QUIET])


def _choosing(command: _Command) -> _Command:
    """Add the options that say which cells of which matrix, from which lock."""
    for option in reversed(
        [
            click.option(
                "-f",
                "--file",
                "matrix",
                type=_PATH,
                metavar="MATRIX",
                help="The matrix.  [default: matrix.toml, if there]",
            ),
            click.option(
                "--lock",
                type=_PATH,
                metavar="LOCK",
                help="uv.lock, pylock.toml or a hash-pinned requirements.txt.  [default: the first of them here]",
            ),
            click.option(
                "--only",
                multiple=True,
                metavar="AXIS=VALUE,…",
                help="Only these cells: python=3.13,base=alpine. Repeatable.",
            ),
            click.option(
                "--platform",
                metavar="OS/ARCH",
                help="linux/amd64 or linux/arm64.  [default: the matrix's, or this machine's]",
            ),
            click.option(
                "--mirror",
                "mirrors",
                multiple=True,
                metavar="REGISTRY=MIRROR",
                help="Fetch images of one registry from another. Repeatable; also $BUILDER_MIRRORS.",
            ),
            click.option(
                "--branch",
                metavar="NAME",
                help="A branch's own tags, 3.13-alpine-NAME, instead of those that all jobs name.",
            ),
        ]
    ):
        command = option(command)
    return _talking(command)


def _promoting(command: _Command) -> _Command:
    """Add the options that say which tags move, and whether anything does."""
    for option in (
        click.option("--dry-run", is_flag=True, help="Show what would be built, sent and moved."),
        click.option(
            "--promote",
            "which",
            type=click.Choice(["all", "passed", "none"]),
            default="all",
            show_default=True,
            help="With --push: whose tags move: all when all passed, those that passed, or none.",
        ),
    ):
        command = option(command)
    return command


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 all well; 1 a build or a check failed; 2 usage or configuration; "
    "3 environment, credentials or network; 4 published in part; 130 interrupted.",
)
@_talking
@click.version_option(__version__, prog_name="builder")
def cli() -> None:
    """Bake a project's locked dependencies into the images that its CI jobs run on.

    \b
    A first look, nothing is built:      builder plan --lock uv.lock
    Build and verify on this machine:    builder build --lock uv.lock
    Read what would be built:            builder render --lock uv.lock -o contexts/

    Without a matrix.toml one image is made: the Python of .python-version, or the newest that the
    lock admits, on Debian bookworm.
    """  # noqa: D301 - click takes the character, not the backslash


@cli.command("plan")
@_choosing
@click.option("--exit-code", is_flag=True, help="End with 1 when a cell would be built or a tag moved, for pipelines.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON (docs/json.md).")
def plan_command(exit_code: bool, as_json: bool, **wish: Any) -> None:
    """Show what would be built and why: packages, download, tags and key of each cell."""
    from builder import terminal
    from builder.pipeline import explain

    job, rendered = _render(**wish)
    try:
        statuses = explain(job, rendered)
    except RegistryError as error:
        if exit_code:
            raise
        terminal.complain(error)
        statuses = {}
    if as_json:
        click.echo(json.dumps(terminal.plan_json(rendered, statuses), indent=2))
    else:
        click.echo(terminal.plan_table(rendered, statuses))
    if exit_code and any(status.state != "up-to-date" for status in statuses.values()):
        sys.exit(1)


@cli.command("render")
@_choosing
@click.option("-o", "--output", type=_PATH, required=True, metavar="DIR", help="Where to write a folder for each cell.")
def render_command(output: Path, **wish: Any) -> None:
    """Write each cell's build context: its Dockerfile and its selection of the lock."""
    _, rendered = _render(**wish)
    for each in rendered:
        folder = output / each.plan.cell.name
        if folder.exists() and not (folder / "Dockerfile").is_file() and any(folder.iterdir()):
            raise UsageError(f"{folder} is there and was not written by builder", hint="name another folder with -o")
    for each in rendered:
        folder = output / each.plan.cell.name
        each.replace(folder)
        click.echo(str(folder))


@cli.command("build")
@_choosing
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Cells built at a time.")
@click.option("--no-verify", is_flag=True, help="Do not try the contract on the images.")
@click.option("--no-cache", is_flag=True, help="Build every step anew.")
@click.option("--pull", is_flag=True, help="Look for newer bases even where the engine has them.")
@click.option(
    "--builder", envvar="BUILDX_BUILDER", metavar="NAME", help="The buildx builder to use; also $BUILDX_BUILDER."
)
@click.option(
    "--progress",
    type=click.Choice(["auto", "plain", "tty"]),
    default="auto",
    show_default=True,
    help="How to show progress.",
)
@click.option(
    "--log-dir",
    type=_PATH,
    default=_logs,
    metavar="DIR",
    help="Where to keep each cell's log.  [default: ~/.cache/builder/logs]",
)
@click.option("--push", is_flag=True, help="Push what the registry lacks, then move the tags that jobs name.")
@_promoting
@click.option(
    "--provenance",
    type=click.Choice(["min", "max"]),
    is_flag=False,
    flag_value="min",
    help="Attest how each image was built; `max` says all of it.  [without a value: min]",
)
@click.option("--sbom", is_flag=True, help="Attest what is in each image.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON (docs/json.md).")
def build_command(
    jobs: int, no_verify: bool, no_cache: bool, pull: bool, builder: str | None, progress: Any, log_dir: Path,
    push: bool, which: Any, dry_run: bool, provenance: Any, sbom: bool, as_json: bool, **wish: Any,
) -> None:  # fmt: skip
    """Build, verify and tag an image for each cell; with --push, only what the registry lacks."""
    from builder import terminal
    from builder.build import BuildSettings, check_provenance, secrets_of_environment
    from builder.buildx import Buildx
    from builder.checkout import Checkout
    from builder.engine import DockerEngine
    from builder.pipeline import Publication, Workshop, build_all, publish_all, published_repository
    from builder.publish import push as push_image
    from builder.remote import engine_for_push

    if push and no_verify:
        raise UsageError("--push with --no-verify", hint="only what was verified is pushed; leave one of the two out")
    secrets = secrets_of_environment()
    check_provenance(provenance)
    job, rendered = _render(**wish)
    buildx = Buildx(builder=builder)
    registries, standing = _standing(job, rendered, buildx) if push else (None, ())
    if dry_run:
        click.echo(terminal.dry_run_table(rendered, standing, which))
        return
    cached = job.matrix.cache == "registry" and published_repository(job.matrix) is not None
    settings = BuildSettings(
        mirrors=job.mirrors, secrets=secrets, logs=log_dir, no_cache=no_cache, pull=pull,
        reads_cache=cached, writes_cache=cached and push, provenance=provenance, sbom=sbom,
    )  # fmt: skip
    with terminal.Display([each.plan.cell.name for each in rendered], progress=progress, quiet=_is_quiet()) as display:
        workshop = partial(
            Workshop, settings=settings, checkout=None if no_verify else Checkout.of(job.lock), on_news=display.show,
            send=partial(push_image, registries=registries, compression=job.matrix.compression) if registries else None,
        )  # fmt: skip
        if registries:
            done = publish_all(
                standing, lambda: workshop(engine=engine_for_push(buildx)), registries, jobs=jobs, which=which
            )
        else:
            here = workshop(engine=DockerEngine(buildx=buildx))
            done = Publication(results=build_all(rendered, here, jobs=jobs), promotion=None)
    _report(done, as_json=as_json, pushed=push)


def _standing(job: Job, rendered: tuple[RenderedImage, ...], buildx: Buildx) -> tuple[Any, tuple[Standing, ...]]:
    from builder.pipeline import repository_for
    from builder.registry import Registries
    from builder.standing import standings

    repository_for("push to", job.matrix)
    registries = Registries(job.mirrors, insecure=job.matrix.insecure, stopped=buildx.processes.stopped)
    return registries, standings(rendered, registries)


def _report(done: Publication, *, as_json: bool, pushed: bool) -> None:
    """Print the product, complain of each failed cell, and end with the exit code of the gravest."""
    from builder import terminal

    if as_json:
        click.echo(json.dumps(terminal.build_json(done), indent=2))
    else:
        for result in done.results:
            if result.error is None:
                click.echo(result.rendered.moving_tags[0].familiar)
    for line in terminal.promotion_lines(done) if pushed else ():
        terminal.say(line)
    faults = [result.error for result in done.results if result.error]
    for fault in faults:
        terminal.complain(fault)
    if faults:
        terminal.say(f"builder: {len(faults)} of {len(done.results)} cells failed; their moving tags stay as they were")
        kinds = {fault.exit_code for fault in faults}
        sys.exit(1 if kinds & {BuildError.exit_code, VerifyError.exit_code} else max(kinds))


@cli.command("push")
@_choosing
@click.option(
    "--promote", "only_promote", is_flag=True, help="Push nothing: find every cell by its key, move the tags."
)
@click.option("--rollback", is_flag=True, help="Put back what the moving tags named before the latest promotion.")
@click.option("--dry-run", is_flag=True, help="Show what would be sent and moved.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON (docs/json.md).")
def push_command(only_promote: bool, rollback: bool, dry_run: bool, as_json: bool, **wish: Any) -> None:
    """Push images that were built and verified earlier, and move the tags that jobs name."""
    from builder import terminal
    from builder.engine import DockerEngine
    from builder.pipeline import Publication, journal_for, push_earlier
    from builder.promote import rollback as put_back

    job, rendered = _render(**wish)
    engine = DockerEngine()
    registries, standing = _standing(job, rendered, engine.buildx)
    if dry_run:
        click.echo(terminal.dry_run_table(rendered, standing, "all"))
        return
    if rollback:
        promotion = put_back(journal_for(rendered[0]), registries)
        done = Publication(results=(), promotion=promotion)
    else:
        done = push_earlier(standing, registries, None if only_promote else engine, job.matrix.compression)
    _report(done, as_json=as_json, pushed=True)


@cli.command("diff")
@click.argument("old")
@click.argument("new", required=False)
@_choosing
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON (docs/json.md).")
def diff_command(old: str, new: str | None, as_json: bool, **wish: Any) -> None:
    """Compare two published images, or an image with what would be built now.

    OLD and NEW are tags of the matrix's repository, or whole references with a tag or digest.
    """
    from builder import terminal
    from builder.diff import compare, planned, published
    from builder.pipeline import published_repository
    from builder.registry import Registries

    job, rendered = _render(**wish)
    registries = Registries(job.mirrors, insecure=job.matrix.insecure)
    repository = published_repository(job.matrix)
    before = published(old, repository, registries)
    after = published(new, repository, registries) if new else planned(before, rendered)
    found = compare(before, after)
    click.echo(json.dumps(terminal.diff_json(found), indent=2) if as_json else terminal.diff_table(found))


@cli.command("prune")
@_choosing
@click.option("--keep", type=click.IntRange(0), default=3, show_default=True, help="Generations to keep.")
@click.option(
    "--branch-days",
    type=click.IntRange(0),
    default=30,
    show_default=True,
    help="Days after its latest promotion that a branch's tags keep their images. The one named by --branch is gone.",
)
@click.option(
    "--hours",
    type=click.IntRange(0),
    default=24,
    show_default=True,
    help="Hours that an image stays in any case: it may be that of a run which is not done yet.",
)
@click.option("--delete", is_flag=True, help="Delete; without it, show what would be deleted.")
def prune_command(keep: int, branch_days: int, hours: int, delete: bool, **wish: Any) -> None:
    """Remove immutable tags that no moving tag and none of the latest generations use."""
    from datetime import datetime, timedelta, timezone

    from builder import terminal
    from builder.pipeline import repository_for
    from builder.prune import Wanted, candidates, remove
    from builder.registry import Registries

    job, rendered = _render(**wish)
    repository = repository_for("prune", job.matrix)
    registries = Registries(job.mirrors, insecure=job.matrix.insecure)
    now = datetime.now(timezone.utc)
    wanted = Wanted(
        generations=keep, keys=set() if job.matrix.branch else {each.key for each in rendered},
        built_after=now - timedelta(hours=hours), since=now - timedelta(days=branch_days), gone=job.matrix.branch,
    )  # fmt: skip
    found = candidates(repository, registries, wanted)
    for each in found:
        click.echo(each.ref.familiar)
    if delete:
        remove(found, registries)
    terminal.say(f"builder: {len(found)} tags {'deleted' if delete else 'would be deleted; --delete does it'}")


@cli.command("verify")
@click.argument("image")
@click.option(
    "--lock",
    type=_PATH,
    metavar="LOCK",
    help="The lock of the project that jobs check out.  [default: the one here, if any]",
)
@click.option(
    "-f",
    "--file",
    "matrix",
    type=_PATH,
    metavar="MATRIX",
    help="The matrix: which groups and extras jobs sync.  [default: matrix.toml, if there]",
)
@click.option("--check", "only", multiple=True, metavar="NAME", help="Only this check. Repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON (docs/json.md).")
@_talking
def verify_command(image: str, lock: Path | None, matrix: Path | None, only: tuple[str, ...], as_json: bool) -> None:
    """Try the contract on an IMAGE, as a CI runner would run it."""
    from builder import terminal
    from builder.build import secrets_of_environment
    from builder.engine import DockerEngine
    from builder.pipeline import checkout_for
    from builder.verify import CHECKS, Given, examine, failed

    for name in only:
        if name not in CHECKS:
            raise UsageError(f"no check {name!r}{near(name, CHECKS)}", hint=f"checks: {', '.join(CHECKS)}")
    quiet = _is_quiet()
    checkout = checkout_for(matrix, lock)
    engine = DockerEngine()
    engine.image_id(image)
    checks = examine(
        image, engine, checkout=checkout, given=Given(secrets=secrets_of_environment()), only=only,
        on_check=lambda name: None if quiet else terminal.say(f"… {name}"),
    )  # fmt: skip
    if as_json:
        table = {"image": image, "checks": [terminal.check_json(check) for check in checks]}
        click.echo(json.dumps(table, indent=2))
    else:
        click.echo(terminal.checks_table(checks))
    if faults := failed(checks):
        raise VerifyError(f"{image} does not keep its promise: {', '.join(check.name for check in faults)}")


@cli.group("ci")
def ci() -> None:
    """What GitLab needs of the images: jobs to extend, a child pipeline, an older file brought over."""


@ci.command("images")
@_choosing
@click.option("--pin", is_flag=True, help="Name the images by digest, which nobody can move.")
@click.option("--dotenv", "dotenv_path", type=_PATH, metavar="FILE", help="Write PREBUILT_<CELL>=<image> there too.")
@click.option("-o", "--output", type=_PATH, metavar="FILE", help="Where to write the YAML.  [default: stdout]")
def ci_images_command(pin: bool, dotenv_path: Path | None, output: Path | None, **wish: Any) -> None:
    """Write the YAML that jobs include: a hidden job for each cell that is published, for them to extend."""
    from builder.gitlab import dotenv, jobs_yaml
    from builder.pipeline import Wish, default_cell, job_images, read_matrix, repository_for
    from builder.registry import Registries

    matrix, mirrors = read_matrix(Wish(**wish))
    repository = repository_for("read the images from", matrix)
    images = job_images(matrix, repository, Registries(mirrors, insecure=matrix.insecure))
    default = default_cell(matrix).name
    if dotenv_path:
        _write(dotenv_path, dotenv(images, default, pin=pin))
    _write(output, jobs_yaml(images, default, pin=pin))


@ci.command("pipeline")
@_choosing
@click.option("--job", "keywords", type=_PATH, metavar="FILE", help="YAML: what each job has: image, tags, services, …")
@click.option("--options", "building", default="", metavar="TEXT", help="More options of `builder build` for each job.")
@click.option("--prune", is_flag=True, help="Delete at the end what nothing needs any more.")
@click.option("-o", "--output", type=_PATH, metavar="FILE", help="Where to write the pipeline.  [default: stdout]")
def ci_pipeline_command(
    keywords: Path | None, building: str, prune: bool, output: Path | None, **wish: Any
) -> None:  # fmt: skip
    """Write a child pipeline: a build job for each cell that the registry lacks, then one that moves the tags."""
    from builder.gitlab import Commands, job_keywords, pipeline_yaml
    from builder.pipeline import Wish, render_all, repository_for
    from builder.pipeline import read as read_job
    from builder.registry import Registries
    from builder.standing import standings

    asked = Wish(**wish)
    table = job_keywords(_text(keywords), str(keywords)) if keywords else {}
    if prune and asked.branch:
        raise UsageError("--prune with --branch", hint="what a branch leaves behind goes with `builder prune --branch`")
    commands = Commands(options=asked.options, building=_words(building), only=asked.only, prune=prune)
    job = read_job(asked)
    repository_for("push to", job.matrix)
    registries = Registries(job.mirrors, insecure=job.matrix.insecure)
    _write(output, pipeline_yaml(standings(render_all(job), registries), table, commands))


@ci.command("adopt")
@click.argument("file", type=_PATH, default=".gitlab-ci.yml", metavar="[FILE]")
@click.option(
    "-f",
    "--file",
    "matrix",
    type=_PATH,
    metavar="MATRIX",
    help="The matrix: which images there are.  [default: matrix.toml]",
)
@_talking
def ci_adopt_command(file: Path, matrix: Path | None) -> None:
    """Print what to change in FILE so that its jobs run on baked images, as a diff; nothing is written.

    FILE is .gitlab-ci.yml when not given. What is left alone, and why, is on stderr.

    \b
    builder ci adopt | git apply
    """  # noqa: D301 - click takes the character, not the backslash
    from builder import matrix as matrices
    from builder.adoption import file as gitlabfile
    from builder.adoption.adopt import adopt, patch
    from builder.terminal import say

    if matrix is None and not Path("matrix.toml").exists():
        hint = "its cells are the images that jobs can run on: write one (docs/matrix.md), or name it with -f"
        raise UsageError("no matrix.toml here", hint=hint)
    read = gitlabfile.read(file)
    adoption = adopt(read, matrices.read(matrix or Path("matrix.toml")))
    here = file.resolve()
    name = here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else Path(here.name)
    click.echo(patch(name.as_posix(), read.text, adoption.text), nl=False)
    for remark in adoption.remarks if not _is_quiet() else ():
        say(f"{file}:{remark.line}: {f'{remark.job}: ' if remark.job else ''}{remark.text}")
    if adoption.text == read.text and not _is_quiet():
        say(f"builder: nothing to change in {file}")


def _words(options: str) -> list[str]:
    try:
        words = shlex.split(options)
    except ValueError as error:
        raise UsageError(f"--options {options!r} cannot be read: {error}", hint="quote it as in a shell") from error
    for word in words:
        if word.startswith(("--only", "--push", "--promote", "--json", "--dry-run")):
            raise UsageError(f"--options has {word}, which each job has of its own", hint="leave that out")
    return words


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _write(path: Path | None, text: str) -> None:
    """Write a file whole or not at all; without a path, to stdout. A device, such as /dev/null, is written to."""
    if path is None:
        click.echo(text, nl=False)
        return
    path = path.resolve()
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
            return
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", hint="name another file") from error


@cli.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of matrix.toml, for editors."""
    from builder.matrix import schema

    click.echo(schema(), nl=False)


@cli.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print the completion script of a SHELL: eval "$(builder completion bash)"."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found:
        click.echo(found(cli, {}, "builder", "_BUILDER_COMPLETE").source())


def _render(**said: Any) -> tuple[Job, tuple[RenderedImage, ...]]:
    from builder.pipeline import Wish, read, render_all

    wish: Wish = Wish(**said)
    job = read(wish)
    return job, render_all(job)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> NoReturn:
    """Run the command line; every way it can end has an exit code of errors.py."""
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it warns of each retry
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        cli.main(prog_name="builder", standalone_mode=False)
    except click.exceptions.Abort:
        _end(InterruptedRun("interrupted"))
    except KeyboardInterrupt:
        _end(InterruptedRun("interrupted"))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BuilderError as error:
        _end(error)
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        _end(CommandError(f"{error.filename or 'this machine'}: {error.strerror}"))
    sys.exit(0)


def _end(error: BuilderError) -> NoReturn:
    from builder.terminal import complain

    complain(error)
    sys.exit(error.exit_code)
