"""Builds a `RenderedImage` to a `BuiltImage`, with one `docker buildx build` per cell."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import Field

from builder.contract import INPUTS_LABEL, KEY_LABEL, KEY_LENGTH, STEP_CACHE_TAG
from builder.disk import full_disk
from builder.engine.buildx import DAMAGED_CACHE, BuildRequest, Provenance
from builder.engine.protocol import Engine
from builder.errors import BuildError, EngineError, UsageError
from builder.image.build_log import BuildLog
from builder.image.inputs import ImageInputs
from builder.image.render import RenderedImage
from builder.index_mirror import IndexMirrors
from builder.oci.archive import ImageArchive
from builder.oci.manifest import DigestText
from builder.oci.reference import Digest, ImageRef, Mirrors
from builder.parse import Document, parse_or_raise
from builder.redaction import Login, redact

# Advice for known failures, by a pattern in the output: there is no error code to tell them apart.
_ADVICE: Final[Mapping[str, str]] = {
    DAMAGED_CACHE: "the engine's own cache is damaged: repeat with --no-cache; if that fails too, restart the engine",
    "no space left on device": "the engine's disk is full: make space on it; `docker system df` shows what uses it",
    r"(command|directory): '?(gcc|cc|g\+\+)\b|command '(gcc|cc|g\+\+)' failed": "a package is built from source: "
    'add a compiler to the base\'s build-packages, "gcc" and "libc6-dev" (Alpine: "build-base")',
}

# The default of `docker buildx build --sbom=true`, as a full name, which mirrors can replace.
SBOM_GENERATOR: Final = ImageRef.from_str("docker.io/docker/buildkit-syft-scanner:stable-1")


_MALFORMED: Final = EngineError("docker buildx wrote malformed metadata", hint="update docker buildx")


class _Metadata(Document):
    """The fields of buildx's --metadata-file that builder reads."""

    digest: DigestText = Field(alias="containerimage.digest")


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """How to build. No setting affects the content of the image, or its key.

    With `reverify`, what an earlier image proved of its layers is proven again.
    """

    mirrors: Mirrors
    secrets: Mapping[str, Path]
    logs: Path
    proxy_arguments: tuple[str, ...] = ()
    proxy_logins: tuple[Login, ...] = ()
    reads_cache: bool = False
    writes_cache: bool = False
    no_cache: bool = False
    pull: bool = False
    reverify: bool = False
    provenance: Provenance | None = None
    sbom: bool = False
    ssh_agent: bool = False
    index_mirrors: IndexMirrors = field(default_factory=IndexMirrors)

    @property
    def attested(self) -> bool:
        """Whether the images get attestations."""
        return self.sbom or self.provenance is not None

    def log_of(self, rendered: RenderedImage) -> Path:
        """The path of the build log of a cell."""
        return self.logs / f"{rendered.plan.cell.name}-{rendered.key[:KEY_LENGTH]}.log"


@dataclass(frozen=True, kw_only=True)
class BuiltImage:
    """An image in the engine's store under its immutable tag.

    `archive` is the image as the engine saved it, once for all that read it; it is deleted after the cell's last stage.
    `size` is that of all its layers in bytes: compressed by containerd's image store, uncompressed by Docker's own.
    `seconds` is the duration of the build.
    """

    rendered: RenderedImage
    digest: Digest
    archive: Path
    size: int
    seconds: float

    @property
    def made(self) -> bool:
        """Whether this run made some of it, and wrote a log: always."""
        return True


def build(
    rendered: RenderedImage, engine: Engine, settings: BuildSettings, folder: Path, *, on_step: Callable[[str], None]
) -> BuiltImage:
    """Build one cell, write its log, and save the image to a new file in the folder.

    Raises BuildError with the last output of the failed step and the log's path.
    """
    started = time.monotonic()
    log = new_log(settings.log_of(rendered))
    with tempfile.TemporaryDirectory(prefix="builder-") as scratch, log.open("w", encoding="utf-8") as file:
        context, metadata = Path(scratch, "context"), Path(scratch, "metadata.json")
        context.mkdir()
        rendered.write(context)
        progress = BuildLog(file=file, packages=len(rendered.plan.selection.packages), on_step=on_step)
        returncode = engine.build(_request(rendered, settings, context, metadata), on_line=progress.read)
        progress.finish()
        if returncode:
            raise failure_of(rendered, progress, returncode, log)
        digest = parse_or_raise(_Metadata, metadata.read_bytes(), _MALFORMED).digest
    archive = folder / f"{rendered.plan.cell.name}.tar"
    engine.save(str(rendered.immutable_tag), archive)
    with ImageArchive(archive) as opened:
        size = opened.size
    return BuiltImage(
        rendered=rendered,
        digest=Digest.from_str(digest),
        archive=archive,
        size=size,
        seconds=time.monotonic() - started,
    )


def new_log(path: Path) -> Path:
    """Create an empty log and return its path; raise UsageError if that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")
    except OSError as error:
        raise _unwritable(path.parent, error) from error
    return path


def check_log_folder(folder: Path) -> None:
    """Raise UsageError unless logs can be written to the folder, which need not exist yet."""
    standing = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    try:
        tempfile.TemporaryFile(dir=standing).close()
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> UsageError:
    return UsageError(
        f"cannot write logs to {folder}: {error.strerror}",
        hint="name another folder with --log-dir, or for all that builder keeps with BUILDER_CACHE_DIR",
    )


def _request(rendered: RenderedImage, settings: BuildSettings, context: Path, metadata: Path) -> BuildRequest:
    plan = rendered.plan
    cache = str(plan.repository.with_tag(f"{STEP_CACHE_TAG}-{plan.cell.name}"))
    located = {str(ref): settings.mirrors.locate(ref) for ref in (plan.base, plan.uv)}
    return BuildRequest(
        context=context,
        tag=str(rendered.immutable_tag),
        platform=str(plan.cell.platform),
        metadata=metadata,
        labels={KEY_LABEL: rendered.key, INPUTS_LABEL: ImageInputs.of(rendered).to_label()},
        # The Dockerfile, and so the key, has the original names; a mirror only changes where they are fetched from.
        contexts={name: f"docker-image://{ref.without_tag()}" for name, ref in located.items() if name != str(ref)},
        secrets=settings.secrets,
        build_args=settings.proxy_arguments,
        ssh_agent=settings.ssh_agent,
        cache_from=cache if settings.reads_cache else None,
        cache_to=cache if settings.writes_cache else None,
        no_cache=settings.no_cache,
        pull=settings.pull,
        provenance=settings.provenance,
        sbom=str(settings.mirrors.locate(SBOM_GENERATOR)) if settings.sbom else None,
    )


def advice_on(reason: str) -> list[str]:
    """What to do about a known failure, from the text that reports it; nothing if it is not known."""
    return [advice for pattern, advice in _ADVICE.items() if re.search(pattern, reason, re.IGNORECASE)]


def failure_of(rendered: RenderedImage, progress: BuildLog, returncode: int, log: Path) -> BuildError:
    """The error of a failed build: the last output of the failed step, advice where the failure is known, the log."""
    reason = redact(progress.failure_text() or f"docker buildx build failed with exit code {returncode}")
    full = full_disk()  # a disk of this machine, and not the engine's
    advice = [full] if full else advice_on(reason)
    hint = "\n  ".join([*advice, *filter(None, [progress.advice]), f"log: {log}"])
    return BuildError(f"{rendered.plan.cell.name}: {reason}", hint=hint)
