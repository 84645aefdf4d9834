"""`RenderedImage` → `BuiltImage`: one `docker buildx build` per cell."""

from __future__ import annotations

import json
import netrc
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from builder.archive import ImageArchive
from builder.buildx import BuildRequest, Printed, Progress, Provenance, Vertex
from builder.command import redact
from builder.credentials import configured_proxies
from builder.engine import Engine
from builder.errors import BuildError, UsageError
from builder.inputs import INPUTS_LABEL, KEY_LABEL, Inputs
from builder.refs import Digest, ImageRef, Mirrors
from builder.render import CA_SECRET, KEY_LENGTH, NETRC_SECRET, RenderedImage

# Docker's predefined build arguments: they reach RUN, and stay out of the image and its history.
PROXY_ARGS: Final = tuple(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY")
    for name in (upper, upper.lower())
)

# BuildKit repeats the whole script of a RUN before its exit code.
_SCRIPT: Final = re.compile(r'^process ".*" did not complete successfully: ', re.DOTALL)

# What a failing step's last words are known to mean; there is no code to tell these by.
_ADVICE: Final[Mapping[str, str]] = {
    "no space left on device": "the engine's disk is full: `docker system df` shows what takes it, "
    "`docker system prune` frees it",
    r"(command|directory): '?(gcc|cc|g\+\+)\b|command '(gcc|cc|g\+\+)' failed": "a package is built from source: "
    'name a compiler under the base\'s packages, "gcc" and "libc6-dev" (Alpine: "build-base")',
}

# What `docker buildx build --sbom=true` takes, by the name that mirrors know.
SBOM_GENERATOR: Final = ImageRef.from_str("docker.io/docker/buildkit-syft-scanner:stable-1")

_SECRET_VARIABLES: Final[Mapping[str, str]] = {CA_SECRET: "SSL_CERT_FILE", NETRC_SECRET: "NETRC"}


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """How to build, which decides nothing of what is in the image."""

    mirrors: Mirrors
    secrets: Mapping[str, Path]
    logs: Path
    reads_cache: bool = False
    writes_cache: bool = False
    no_cache: bool = False
    pull: bool = False
    provenance: Provenance | None = None
    sbom: bool = False

    @property
    def attested(self) -> bool:
        """Whether the images are to have attestations."""
        return self.sbom or self.provenance is not None

    def log_of(self, rendered: RenderedImage) -> Path:
        """Where the log of the cell's build is kept."""
        return self.logs / f"{rendered.plan.cell.name}-{rendered.key[:KEY_LENGTH]}.log"


@dataclass(frozen=True, kw_only=True)
class BuiltImage:
    """An image in the engine's store under its immutable tag.

    `size` is in bytes, of all layers as the engine hands them out: compressed, with its containerd image store.
    `seconds` is how long the build took.
    """

    rendered: RenderedImage
    digest: Digest
    size: int
    seconds: float


def secrets_of_environment() -> dict[str, Path]:
    """The files that builds are given as secret mounts: SSL_CERT_FILE and NETRC, where set.

    Raises UsageError where one is set and cannot be read.
    """
    secrets = {}
    for name, variable in _SECRET_VARIABLES.items():
        if os.environ.get(variable):
            path = Path(os.environ[variable])
            if not path.is_file() or not os.access(path, os.R_OK):
                raise UsageError(f"{variable} names {path}, which cannot be read", hint=f"mend or unset {variable}")
            secrets[name] = path
    if NETRC_SECRET in secrets:
        _check_netrc(secrets[NETRC_SECRET])
    return secrets


def check_provenance(provenance: Provenance | None) -> None:
    """Raise UsageError where provenance would say a secret: at its fullest it has the values of build arguments."""
    if provenance != "max":
        return
    given = {name: os.environ.get(name, "") for name in PROXY_ARGS} | configured_proxies()
    for name, value in given.items():
        if redact(value) != value:
            raise UsageError(
                f"{name} has a password, which --provenance=max would publish",
                hint="take --provenance=min, which leaves build arguments out",
            )


def _check_netrc(path: Path) -> None:
    try:
        netrc.netrc(str(path))
    except netrc.NetrcParseError as error:  # its text may have a password
        raise UsageError(f"NETRC names {path}, which is no netrc file: see line {error.lineno}") from None
    except ValueError as error:
        raise UsageError(f"NETRC names {path}, which is not UTF-8 text") from error


def build(
    rendered: RenderedImage, engine: Engine, settings: BuildSettings, *, on_step: Callable[[str], None]
) -> BuiltImage:
    """Build one cell and keep its log; raise BuildError with the failing step's last words and the log's path."""
    started = time.monotonic()
    log = _new_log(settings.log_of(rendered))
    with tempfile.TemporaryDirectory(prefix="builder-") as scratch, log.open("w", encoding="utf-8") as file:
        context, metadata = Path(scratch, "context"), Path(scratch, "metadata.json")
        context.mkdir()
        rendered.write(context)
        progress = _Log(file=file, packages=len(rendered.plan.selection.packages), on_step=on_step)
        returncode = engine.build(_request(rendered, settings, context, metadata), on_line=progress.read)
        progress.finish()
        if returncode:
            raise _failure(rendered, progress, returncode, log)
        built = json.loads(metadata.read_text(encoding="utf-8"))
        saved = Path(scratch, "image.tar")
        engine.save(str(rendered.immutable_tag), saved)
        with ImageArchive(saved) as archive:
            size = archive.size
    return BuiltImage(
        rendered=rendered,
        digest=Digest.from_str(built["containerimage.digest"]),
        size=size,
        seconds=time.monotonic() - started,
    )


def _new_log(path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"cannot write logs to {path.parent}: {error.strerror}", hint="name another folder with --log-dir"
        ) from error
    return path


def _request(rendered: RenderedImage, settings: BuildSettings, context: Path, metadata: Path) -> BuildRequest:
    plan = rendered.plan
    cache = str(plan.repository.with_tag(f"builder-cache-{plan.cell.name}"))
    located = {str(ref): settings.mirrors.locate(ref) for ref in (plan.base, plan.uv)}
    return BuildRequest(
        context=context,
        tag=str(rendered.immutable_tag),
        platform=str(plan.cell.platform),
        metadata=metadata,
        labels={KEY_LABEL: rendered.key, INPUTS_LABEL: Inputs.of(rendered).to_label()},
        # The Dockerfile, and with it the key, has the registries' own names; a mirror only says where to fetch from.
        contexts={name: f"docker-image://{ref.without_tag()}" for name, ref in located.items() if name != str(ref)},
        secrets=settings.secrets,
        build_args=[name for name in PROXY_ARGS if os.environ.get(name)],
        cache_from=cache if settings.reads_cache else None,
        cache_to=cache if settings.writes_cache else None,
        no_cache=settings.no_cache,
        pull=settings.pull,
        provenance=settings.provenance,
        sbom=str(settings.mirrors.locate(SBOM_GENERATOR)) if settings.sbom else None,
    )


def _failure(rendered: RenderedImage, progress: _Log, returncode: int, log: Path) -> BuildError:
    said = redact(progress.last_words() or f"docker buildx build ended with {returncode}")
    hints = [advice for sign, advice in _ADVICE.items() if re.search(sign, said, re.IGNORECASE)]
    hint = "\n  ".join([*hints, f"log: {log}"])
    return BuildError(f"{rendered.plan.cell.name}: {said}", hint=hint)


@dataclass(kw_only=True)
class _Log:
    """Reads the progress of a build into a readable log."""

    file: IO[str]
    packages: int
    on_step: Callable[[str], None]
    names: dict[str, str] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    begun_lines: dict[str, bytes] = field(default_factory=dict)
    tails: dict[str, list[str]] = field(default_factory=dict)
    failed: list[tuple[str, str]] = field(default_factory=list)
    plain: list[str] = field(default_factory=list)
    progress: Progress = field(default_factory=Progress)

    def read(self, line: str) -> None:
        """Take one line of progress; what is not JSON is buildx speaking for itself."""
        for news in self.progress.read(line):
            if isinstance(news, Vertex):
                self._read_vertex(news)
            elif isinstance(news, Printed):
                self._read_output(news.vertex, news.data)
            else:
                self.plain.append(news)
                self._write(news)

    def _read_vertex(self, vertex: Vertex) -> None:
        self.names[vertex.digest] = vertex.name
        if vertex.has_begun and vertex.digest not in self.begun:
            self.begun.add(vertex.digest)
            self._write(f"=== {vertex.name}{' (cached)' if vertex.is_cached else ''}")
            step = _step(vertex.name, self.packages)
            if step:
                self.on_step(step)
        if vertex.error:
            error = _SCRIPT.sub("", vertex.error)
            self.failed.append((vertex.digest, error))
            self._write(f"=== {vertex.name}: {error}")

    def _read_output(self, digest: str, data: bytes) -> None:
        # A program that does not buffer sends its lines in pieces.
        *whole, self.begun_lines[digest] = (self.begun_lines.get(digest, b"") + data).split(b"\n")
        for line in whole:
            self._read_line(digest, line.decode(errors="replace").rstrip())

    def _read_line(self, digest: str, text: str) -> None:
        self._write(f"    {text}")
        if text.strip():
            self.tails.setdefault(digest, []).append(text)
        done = re.match(r"(Prepared|Installed|Bytecode compiled) \d+ (package|file)s?", text)
        if done and _step(self.names.get(digest, ""), self.packages):
            self.on_step(text.partition(" in ")[0].lower())

    def finish(self) -> None:
        """Take what ended without a line break."""
        for digest in [digest for digest, line in self.begun_lines.items() if line]:
            self._read_output(digest, b"\n")

    def last_words(self) -> str:
        """What the failing step printed last, or else buildx's own error."""
        for digest, error in self.failed:
            tail = "\n    ".join(self.tails.get(digest, [])[-8:])
            step = _step(self.names[digest], self.packages) or self.names[digest]
            return f"{step} failed: {error}" + (f"\n    {tail}" if tail else "")
        return "\n    ".join(line for line in self.plain[-8:] if line.strip())

    def _write(self, text: str) -> None:
        self.file.write(redact(text) + "\n")
        self.file.flush()


def _step(vertex: str, packages: int) -> str:
    """A vertex's name in plain words; empty for those that are no news."""
    words = {
        "pylock.toml": f"install {packages} packages",
        "RUN --mount": "install system packages",
        "RUN <<": "compile the standard library",
        "COPY": "copy uv",
        "[context": "fetch base and uv",
        "FROM": "fetch base and uv",
        "exporting to": "write the layers",
        "importing to docker": "load into the engine",
    }
    return next((text for start, text in words.items() if start in vertex and "[internal]" not in vertex), "")
