"""Makes layers without an engine: the base image, unpacked into a folder, is the root file system of the steps."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from builder.contract import SECRETS
from builder.engine.progress import ProgressWriter
from builder.errors import EngineError, RegistryError, listed
from builder.image.render import RECIPE_NAME
from builder.layer.base import BaseImage, fetch_image
from builder.layer.blobs import Blobs, BlobSource
from builder.layer.maker import RECIPE_FOLDER, MakeRequest
from builder.layer.store import LayerStore
from builder.matrix.model import Platform
from builder.oci.reference import Digest
from builder.oci.registry import Registries
from builder.process import ProcessGroup
from builder.rootfs.confine import find_confinement
from builder.rootfs.folders import ProgramError, RootFolders
from builder.rootfs.task import Program, Task

_OUTPUT: Final = "/builder-layers"
_RESOLVER: Final = ("/etc/resolv.conf", "/etc/hosts")


@dataclass(frozen=True, kw_only=True)
class ImageFolders:
    """Images of registries, unpacked."""

    registries: Registries
    store: LayerStore
    roots: RootFolders

    @contextmanager
    def unpacked(self, image: BaseImage) -> Iterator[Path]:
        """Yield the tree of an image, which nothing may change: its files are in `root` there."""
        origins = {layer.digest: BlobSource(repository=image.ref, size=layer.size) for layer in image.layers}
        blobs = Blobs(store=self.store, registries=self.registries, origins=origins)

        def fetch(digest: Digest) -> Path:
            blobs.open(digest).close()
            return self.store.path(digest)

        with self.roots.kept([Digest.from_str(layer.digest) for layer in image.layers], fetch) as tree:
            yield tree


@dataclass(frozen=True, kw_only=True)
class NativeMaker:
    """See `Maker`. Images are unpacked below `folder`; `stop` of the processes ends the steps."""

    registries: Registries
    store: LayerStore
    folder: Path
    processes: ProcessGroup

    @cached_property
    def roots(self) -> RootFolders:
        """The root file systems; raises EngineError if no program of an image can be run here."""
        roots = RootFolders(folder=self.folder, confinement=find_confinement(), processes=self.processes)
        roots.sweep()
        return roots

    def _refuse(self, request: MakeRequest) -> None:
        """Raise EngineError for what cannot be done on this machine."""
        if request.platform != Platform.of_this_machine():
            hint = "use --maker cross if all packages have wheels, or name a BuildKit that does with --builder"
            raise EngineError(f"this machine runs no programs for {request.platform}", hint=hint)
        if request.ssh_agent:
            hint = "name a key's file as `key` under ssh in the matrix, or a BuildKit with --builder"
            raise EngineError("an SSH agent cannot be reached from the base image without a BuildKit", hint=hint)
        owned = [*request.packages, *([f"a home for {request.user}"] if request.user else [])]
        if owned and not self.roots.confinement.abilities.ids:
            raise EngineError(
                f"an ordinary user cannot install {listed(owned)}: files would get other owners",
                hint="install newuidmap (Debian: uidmap) and give yourself ids in /etc/subuid and /etc/subgid, "
                "be root, or name a BuildKit with --builder",
            )

    def make(self, request: MakeRequest, output: Path, *, on_line: Callable[[str], None]) -> int:
        """See `Maker.make`."""
        self._refuse(request)
        progress = ProgressWriter(on_line=on_line)
        progress.begin("unpack base and uv")
        base, uv = (
            fetch_image(ref, request.platform, self.registries, self.store) for ref in (request.base, request.uv)
        )
        images = ImageFolders(registries=self.registries, store=self.store, roots=self.roots)
        with images.unpacked(base) as tree, images.unpacked(uv) as uv_tree, self.roots.scratch() as scratch:
            program = Program(
                # -B: what the program itself imports must not leave bytecode in the base's library.
                argv=("python3", "-B", f"{RECIPE_FOLDER}/{RECIPE_NAME}", RECIPE_FOLDER, _OUTPUT),
                environment=_environment(base, request),
                bring=_brought(request, uv, uv_tree / "root"),
                secrets={f"{SECRETS}/{name}": str(path.absolute()) for name, path in request.secrets.items()},
                take_from=_OUTPUT,
                take_to=str(output),
            )
            task = Task(
                target=str(scratch / "root"), trees=[str(tree)], program=program, report="",
                layers=[(str(path.absolute()), "") for path in request.python_layers],
            )  # fmt: skip
            Path(task.target).mkdir()
            progress.begin(f"{RECIPE_NAME} in {request.base.familiar}")
            try:
                code = self.roots.do(task, scratch, on_line=progress.print)
            except ProgramError as error:
                progress.fail(str(error))
                return 1
            if code:
                progress.fail(f"exit code: {code}")
            return code


def _environment(base: BaseImage, request: MakeRequest) -> dict[str, str]:
    """What the base image sets, and the proxies; nothing else of this process's environment."""
    return base.environment | {name: os.environ[name] for name in request.build_args if name in os.environ}


def _brought(request: MakeRequest, uv: BaseImage, uv_root: Path) -> Mapping[str, str]:
    """What is copied into the base's root file system: uv, the steps, and how names are resolved here."""
    programs = {f"/usr/local/bin/{name}": uv_root / name for name in ("uv", "uvx")}
    if not all(path.is_file() and not path.is_symlink() for path in programs.values()):
        raise RegistryError(f"{uv.ref.familiar} has no /uv and /uvx", hint="correct uv-image in the matrix")
    resolver = {name: Path(name) for name in _RESOLVER if Path(name).is_file()}
    brought = {**programs, **resolver, RECIPE_FOLDER: request.folder}
    return {name: str(path) for name, path in brought.items()}
