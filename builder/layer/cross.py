"""Makes layers of wheels without running anything of the base image: for other architectures, and without any rights.

The steps run on this machine in a folder, with uv from uv's image and a CPython of the image's minor version, whose
bytecode the image accepts.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import tomli
import tomli_w

from builder.contract import SECRETS
from builder.engine.progress import ProgressWriter
from builder.errors import BuildError, EngineError, RegistryError, listed
from builder.image.render import RECIPE_NAME
from builder.layer.base import BaseImage, fetch_image
from builder.layer.maker import RECIPE_FOLDER, MakeRequest
from builder.layer.native import ImageFolders
from builder.layer.store import LayerStore
from builder.matrix.interpreter import UvPython
from builder.matrix.model import Platform
from builder.oci.registry import Registries
from builder.process import ProcessGroup, run
from builder.rootfs.clone import clone_tree
from builder.rootfs.confine import FILES_ONLY
from builder.rootfs.folders import RootFolders
from builder.rootfs.task import Task
from builder.rootfs.tree import RootTree, WrongPathError, path_parts

_PROGRAM: Final = Path(__file__).with_name("cross_program.py")
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_SAFE: Final = re.compile(r"[\w./-]{1,80}")  # without quotes in a script; short enough for the first line of programs
# What a step's script has, and what stands in its place: the image's bytecode names the image's paths.
_COMPILES: Final = "export UV_COMPILE_BYTECODE=1"
_STDLIB: Final = 'python3 -m compileall -q -j 0 "$stdlib"'
_ASKS_STDLIB: Final = "$(python3 -c 'import sysconfig; print(sysconfig.get_path(\"stdlib\"))')"
_ASKS_PIP: Final = "$(python3 -c 'import ensurepip; print(ensurepip.__path__[0])')"


@dataclass(frozen=True, kw_only=True)
class _Python:
    """The base image's Python: its path, its exact version, and the folder of its library there."""

    path: str
    version: str
    library: str


@dataclass(frozen=True, kw_only=True)
class CrossMaker:
    """See `Maker`. Images are unpacked below `folder`, as files of this user."""

    registries: Registries
    store: LayerStore
    folder: Path
    processes: ProcessGroup

    @property
    def _images(self) -> ImageFolders:
        roots = RootFolders(folder=self.folder, confinement=FILES_ONLY, processes=self.processes)
        return ImageFolders(registries=self.registries, store=self.store, roots=roots)

    def make(self, request: MakeRequest, output: Path, *, on_line: Callable[[str], None]) -> int:
        """See `Maker.make`. Raises BuildError for what only the image itself can do."""
        _refuse(request)
        progress = ProgressWriter(on_line=on_line)
        progress.begin("unpack base and uv")
        base = fetch_image(request.base, request.platform, self.registries, self.store)
        uv = fetch_image(request.uv, Platform.of_this_machine(), self.registries, self.store)
        with self._images.unpacked(base) as tree, self._images.unpacked(uv) as uv_tree, _scratch() as scratch:
            base_root, uv_root = tree / "root", uv_tree / "root"
            python = _python_of_uv(request.uv_python) if request.uv_python else _find_python(base, base_root)
            root = scratch / "r"
            _copy_library(self._unpack_python(request, scratch) if request.uv_python else base_root, python, root)
            own = _own_python(uv_root / "uv", python)
            environment = _environment(scratch, own, uv_root, request)
            _adapt_recipe(request, scratch, root, python)
            settings = {"root": str(root), "folder": str(request.folder), "output": str(output)}
            path = scratch / "settings.json"
            path.write_text(json.dumps({**settings, "python": python.path, "version": python.version}))
            progress.begin(f"{RECIPE_NAME} for {request.base.familiar}")
            argv = ("sh", "-c", 'exec "$@" >&2', "sh", own, "-B", str(_PROGRAM), str(path))
            code = self.processes.stream(argv, env=environment, on_line=progress.print)
            if code:
                progress.fail(f"exit code: {code}")
            return code

    def _unpack_python(self, request: MakeRequest, scratch: Path) -> Path:
        """Unpack the layer with the Python from uv; return the folder that stands for the image's root."""
        target = scratch / "python"
        target.mkdir()
        layers = [str(path.absolute()) for path in request.python_layers]
        self._images.roots.do(Task(kind="unpack", unpack={str(target): layers}, owners=False, report=""), scratch)
        return target / "root"


def _refuse(request: MakeRequest) -> None:
    hint = (
        f"make this image where its programs can be run: on a {request.platform} machine or runner "
        "(`builder ci pipeline --runners`, docs/gitlab.md), or with --builder"
    )
    if request.uv_python and not request.uv_python.is_usual:
        raise BuildError(f"bytecode of {request.uv_python.name} cannot be made by another Python", hint=hint)
    if request.packages:
        raise BuildError(f"{listed(request.packages)} cannot be installed without running the base image", hint=hint)
    if request.installs_ca:
        raise BuildError("CA certificates cannot be installed without running the base image", hint=hint)
    if request.tools:
        raise BuildError(f"the tools {listed(request.tools)} cannot be installed without the base image", hint=hint)
    if request.user:
        raise BuildError(f"the user {request.user} cannot be created without running the base image", hint=hint)
    if request.sources:
        what = "has no wheel and" if len(request.sources) == 1 else "have no wheels and"
        raise BuildError(f"{listed(request.sources)} {what} would be built for this machine", hint=hint)


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="builder-") as folder:
        path = Path(folder).resolve()
        if not _SAFE.fullmatch(str(path)):
            raise EngineError(
                f"{path} is too long, or has special characters", hint="set TMPDIR to a plain, short path"
            )
        yield path


def _find_python(base: BaseImage, root: Path) -> _Python:
    """Find the base's Python, without running it."""
    version = base.environment.get("PYTHON_VERSION", "")
    found = re.match(r"\d+\.\d+", version)
    with RootTree(root) as tree:
        for folder in base.environment.get("PATH", _PATH).split(":"):
            if found and _has(tree, f"{folder}/python3"):
                library = f"{Path(folder).parent}/lib/python{found[0]}"
                if _has(tree, f"{library}/os.py"):
                    return _Python(path=f"{folder}/python3", version=version, library=library)
    raise BuildError(
        f"{base.ref.familiar} does not tell which Python it has: PYTHON_VERSION is {version or 'not set'}",
        hint="set it in the base image, as official images do, or make this image where it can be run",
    )


def _python_of_uv(python: UvPython) -> _Python:
    library = f"{python.home}/lib/python{'.'.join(python.version.split('.')[:2])}"
    return _Python(path=f"{python.home}/bin/python", version=python.version, library=library)


def _has(tree: RootTree, path: str) -> bool:
    parts = path_parts(path)
    try:
        folder = tree.folder(parts[:-1], create=False)
        return folder is not None and parts[-1] in os.listdir(folder)
    except WrongPathError:
        return False


def _copy_library(base_root: Path, python: _Python, root: Path) -> None:
    target = Path(f"{root}{python.library}")
    target.mkdir(parents=True)
    with RootTree(base_root) as tree:
        clone_tree(Path(f"/proc/self/fd/{tree.folder(path_parts(python.library), create=False)}"), target)


def _own_python(uv: Path, python: _Python) -> str:
    """A CPython of the same minor version on this machine, or else one that uv fetches; raise EngineError."""
    minor = ".".join(python.version.split(".")[:2])
    find = (str(uv), "python", "find", "--system", "--no-project", "--no-config", f"cpython@{minor}")
    found = run(find)
    if found.returncode:
        fetched = run((str(uv), "python", "install", "--no-config", "--no-bin", f"cpython@{minor}"))
        found = run(find)
        if found.returncode:
            reason = (fetched.stderr.strip().splitlines() or [f"exit code {fetched.returncode}"])[-1]
            raise EngineError(
                f"no CPython {minor} on this machine, which bytecode for this image needs, and uv cannot fetch it: "
                f"{reason.strip()}",
                hint=f"put a python{minor} on PATH, or have `uv python install {minor}` work: UV_PYTHON_DOWNLOADS must "
                "allow it, UV_PYTHON_INSTALL_MIRROR can name a mirror; an image for jobs can have it done before",
            )
    return found.stdout.strip()


def _environment(scratch: Path, own: str, uv_root: Path, request: MakeRequest) -> Mapping[str, str]:
    """The variables of the steps; nothing else of this process's environment than proxies and where things are."""
    programs = scratch / "bin"
    programs.mkdir()
    for name, target in {"python3": Path(own), "uv": uv_root / "uv", "uvx": uv_root / "uvx"}.items():
        if not target.is_file():
            raise RegistryError(f"{request.uv.familiar} has no /{name}", hint="correct uv-image in the matrix")
        (programs / name).symlink_to(target)
    kept = {name: os.environ[name] for name in ("HOME", "LANG", *request.build_args) if name in os.environ}
    path = f"{programs}:{os.environ.get('PATH', _PATH)}"
    return {**kept, "PATH": path, "UV_CONFIG_FILE": str(scratch / "uv.toml"), "BUILDER_PYTHON": own}


def _adapt_recipe(request: MakeRequest, scratch: Path, root: Path, python: _Python) -> None:
    """Change paths of the image to those of the folder, and what the steps would ask the image's Python."""
    (root / "tmp").mkdir()
    limits = {"no-build": True, "pip": {"python-platform": request.uv_platform, "only-binary": [":all:"]}}
    (scratch / "uv.toml").write_text(tomli_w.dumps(limits), encoding="utf-8")
    own = request.folder / "uv.toml"
    if own.exists():
        own.write_text(tomli_w.dumps({**tomli.loads(own.read_text(encoding="utf-8")), **limits}), encoding="utf-8")
    compiled = f'"$BUILDER_PYTHON" -m compileall -q -j 0 -s {root} -p / '
    table = {
        _ASKS_STDLIB: f"{root}{python.library}",
        _ASKS_PIP: f"{root}{python.library}/ensurepip",
        _STDLIB: f'{compiled}"$stdlib"',
        _COMPILES: "",
        **{f"{SECRETS}/{name}": str(path.absolute()) for name, path in request.secrets.items()},
        RECIPE_FOLDER: str(request.folder),
        "/opt/uv": f"{root}/opt/uv",
        "/tmp/": f"{root}/tmp/",  # noqa: S108 - of the image
    }
    known = re.compile("|".join(map(re.escape, table)))
    for path in request.folder.glob("*.sh"):
        text = path.read_text(encoding="utf-8")
        moved = known.sub(lambda found: table[found[0]], text)
        if _COMPILES in text and not path.name.startswith("setup-"):
            site = f"{root}/opt/uv/venv/lib/python*/site-packages"
            moved += f"\nif [ -e {root}/opt/uv/venv ]; then {compiled} {site} || [ $? -eq 1 ]; fi\n"
        path.write_text(moved, encoding="utf-8")
    path = request.folder / "layers.json"
    plan = json.loads(path.read_text(encoding="utf-8"))
    for step in plan["steps"]:
        step["scope"] = f"{root}{step['scope']}".rstrip("/")
    path.write_text(json.dumps({**plan, "below": []}), encoding="utf-8")
