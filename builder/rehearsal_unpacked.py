"""A CI job without an engine: an image of a registry is unpacked here, and its folder is the job's root."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from builder.contract import BUILDS
from builder.errors import EngineError, RegistryError, UsageError
from builder.layer.base import BaseImage, fetch_image
from builder.layer.native import ImageFolders
from builder.matrix.model import Platform
from builder.means import Here
from builder.oci.manifest import ConfigSection, ImageConfig
from builder.oci.reference import ImageRef, has_registry
from builder.parse import parse_document
from builder.rehearsal import Rehearsal
from builder.rootfs.folders import ProgramError
from builder.rootfs.task import Program, Task
from builder.verify.checkout import checkout_tar

_NO_ENGINE: Final = "start Docker, or name an engine with DOCKER_HOST"
_NOT_STARTED: Final = "correct --user or the folder, or name another image with --image"
_RESOLVER: Final = ("/etc/resolv.conf", "/etc/hosts")


def rehearse_unpacked(job: Rehearsal, here: Here) -> int:
    """Run the job, attached to this terminal, and return its exit code.

    Raises EngineError for what takes an engine, UsageError if the registry has no such image.
    """
    image = _fetch(job.image, here)
    roots = here.native.roots
    if job.mounted:
        raise EngineError("--mount takes a Docker engine, and none answers", hint=f"{_NO_ENGINE}; or work in a copy")
    if not (job.network or roots.confinement.abilities.isolation):
        what = "--no-network takes a Docker engine, or network namespaces, which this machine does not allow"
        raise EngineError(what, hint=_NO_ENGINE)
    folders = ImageFolders(registries=here.registries, store=here.store, roots=roots)
    with (
        folders.unpacked(image) as tree,
        roots.scratch() as scratch,
        checkout_tar(job.checkout) as content,
        tempfile.NamedTemporaryFile(prefix="builder-") as volume,
    ):
        shutil.copyfileobj(content, volume, 1 << 20)
        volume.flush()
        target = scratch / "root"
        target.mkdir()
        layers = ((volume.name, BUILDS),)
        task = Task(target=str(target), trees=[str(tree)], layers=layers, program=_program(job, image), report="")
        try:
            return roots.attach(task, scratch)
        except ProgramError as error:
            raise UsageError(f"the job cannot be started on {job.image}: {error.what}", hint=_NOT_STARTED) from error


def _fetch(name: str, here: Here) -> BaseImage:
    """The image of this name in its registry, for this machine."""
    missing = UsageError(f"there is no image {name}", hint="`builder build --push` makes it; --image names another one")
    if not has_registry(name):
        hint = f"{_NO_ENGINE}; or name a repository in the matrix, for `builder build --push`, or an image with --image"
        raise EngineError(f"no Docker engine answers, and {name} is in no registry", hint=hint)
    ref = ImageRef.from_str(name)
    digest = ref.digest or here.registries.fetch_digest(here.registries.mirrors.locate(ref))
    if digest is None:
        raise missing
    try:
        return fetch_image(ref.with_digest(digest), Platform.of_this_machine(), here.registries, here.store)
    except RegistryError as error:
        if ref.digest:
            raise missing from error
        raise


def _program(job: Rehearsal, image: BaseImage) -> Program:
    section = parse_document(ImageConfig, image.config_bytes).config or ConfigSection()
    given = {name: os.environ[name] if value is None else value for name, value in job.variables.items()}
    terminal = {"TERM": os.environ.get("TERM", "xterm")} if job.terminal else {}
    resolver = {name: name for name in _RESOLVER if job.network and Path(name).is_file()}
    return Program(
        argv=(*(section.entry_point or ()), *job.command),
        environment={**terminal, **image.environment, **given},
        workdir=job.checkout.path,
        user=job.user or section.user or "",
        network=job.network,
        bring=resolver,
    )
