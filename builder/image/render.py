"""Renders an `ImagePlan` to a `RenderedImage`: the files of the build context, and the key, which is their hash.

The templates are in `dockerfiles/`. A context depends on nothing but the plan: not on the machine, the time or the
mirrors in use. So the same plan renders to the same bytes everywhere.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import tomli_w
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from builder.contract import (
    CA_BUNDLE,
    CA_SECRET,
    CACHE,
    KEY_LENGTH,
    KNOWN_HOSTS_SECRET,
    NETRC_SECRET,
    PROGRAMS,
    PYTHON_LINKS,
    SECRETS,
    SELECTION,
    SSH_KEY_SECRET,
    SYSTEM_PYTHON,
    TOOLS,
    UNVERIFIED,
    UV_PYTHON_SECRET,
    UV_PYTHONS,
    VENV,
)
from builder.errors import BuilderError, UsageError
from builder.image.plan import ImagePlan
from builder.image.uv_settings import settings_of
from builder.lock.model import BuildSystem, SelectedPackage, Selection
from builder.oci.reference import ImageRef

RECIPE_NAME: Final = "make_layers.py"  # in each layer's key, and in each image's
# Answers git's question for a login (gitcredentials(7)) from the netrc file, in one line without quotes of the shell.
_GIT_CREDENTIAL: Final = (
    "import netrc, os, sys; "
    "asked = dict(line.strip().partition('=')[::2] for line in sys.stdin); "
    "found = netrc.netrc(os.environ['NETRC']).authenticators(asked['host'].partition(':')[0]); "
    "found and print('username=' + found[0], 'password=' + found[2], sep=chr(10))"
).replace("'", r"'\''")
SYSTEM_PYTHON_NAME: Final = "system_python.py"
RECEIPT_NAME: Final = "tool_receipt.py"


@dataclass(frozen=True, kw_only=True)
class RenderedImage:
    """A build context: pairs of relative path and content, sorted by path.

    `key` is the SHA-256 of them all, and of the program that makes layers.
    """

    plan: ImagePlan
    files: tuple[tuple[str, bytes], ...]
    key: str

    @property
    def immutable_tag(self) -> ImageRef:
        """The tag that never moves: `<python>-<base>-<first digits of the key>`."""
        return self.plan.repository.with_tag(f"{self.plan.cell.name}-{self.key[:KEY_LENGTH]}")

    @property
    def unverified_tag(self) -> ImageRef:
        """The tag under which a job gets the image in order to verify it; no image has it for good."""
        return self.plan.repository.with_tag(f"{self.immutable_tag.tag}-{UNVERIFIED}")

    @property
    def moving_tags(self) -> tuple[ImageRef, ...]:
        """The tags that jobs use: `<python>-<base>` and the cell's aliases."""
        return tuple(self.plan.repository.with_tag(tag) for tag in self.plan.moving_tags)

    @property
    def tags(self) -> tuple[ImageRef, ...]:
        """All tags, the immutable one first."""
        return (self.immutable_tag, *self.moving_tags)

    def write(self, directory: Path) -> None:
        """Write the context to a new or empty folder."""
        for name, content in self.files:
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def replace(self, directory: Path) -> None:
        """Write the context to a folder, replacing one from an earlier run; raise UsageError if that fails."""
        fresh = directory.with_name(f".{directory.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            fresh.mkdir(parents=True)
            self.write(fresh)
            shutil.rmtree(directory, ignore_errors=True)
            fresh.rename(directory)
        except OSError as error:
            raise UsageError(
                f"cannot write to {directory}: {error.strerror}", hint="name another folder with -o"
            ) from error


def render(plan: ImagePlan) -> RenderedImage:
    """Render the build context of a plan; the same plan always gives the same bytes."""
    files = {"Dockerfile": _dockerfile(plan).encode(), "prebuilt-status": _status_script(plan).encode()}
    files |= {"pylock.toml": pylock(plan.selection.packages), SYSTEM_PYTHON_NAME: template_bytes(SYSTEM_PYTHON_NAME)}
    for number, group in enumerate(plan.selection.cached):
        files[f"cached-{number}/pylock.toml"] = pylock(group)
    for number, tool in enumerate(plan.selection.tools):
        files |= {RECEIPT_NAME: template_bytes(RECEIPT_NAME), f"tool-{number}/pylock.toml": pylock(tool.packages)}
    files |= build_system_files(plan.selection) | uv_settings_files(settings_of(plan.selection)) | ca_files(plan.ca)
    ordered = tuple(sorted(files.items()))
    return RenderedImage(plan=plan, files=ordered, key=_key(ordered))


def _key(files: tuple[tuple[str, bytes], ...]) -> str:
    hashed = hashlib.sha256()
    for name, content in (*files, (RECIPE_NAME, template_bytes(RECIPE_NAME))):
        hashed.update(f"{name}\0{len(content)}\0".encode())
        hashed.update(content)
    return hashed.hexdigest()


def pylock(packages: Iterable[SelectedPackage]) -> bytes:
    """Render a lock (PEP 751) with exactly these packages."""
    table = {"lock-version": "1.0", "created-by": "builder", "packages": [pylock_package(each) for each in packages]}
    return tomli_w.dumps(table).encode()


def pylock_package(package: SelectedPackage) -> dict[str, Any]:
    """The package's entry in a lock (PEP 751)."""
    entry: dict[str, Any] = {"name": package.name}
    if package.version:
        entry["version"] = package.version
    if package.index:
        entry["index"] = package.index
    source = dict(package.source)
    if package.artifact == "wheel":
        entry["wheels"] = [source]
    else:
        entry[package.artifact] = source
    return entry


def build_system_files(selection: Selection) -> dict[str, bytes]:
    """The files with which the cache is filled for the build systems of local packages."""
    files = {"requires.py": template_bytes("requires.py")} if selection.build_systems else {}
    for number, system in enumerate(selection.build_systems):
        files |= _build_system(f"build-system-{number}", system)
    return files


def ca_files(ca: bytes) -> dict[str, bytes]:
    """The certificates that an image is to trust; none if it has no company's CA."""
    return {"ca.pem": ca} if ca else {}


def uv_settings_files(settings: Mapping[str, Any]) -> dict[str, bytes]:
    """The `uv.toml` that names indexes and says how to build; none without settings."""
    return {"uv.toml": tomli_w.dumps(settings).encode()} if settings else {}


def _build_system(folder: str, system: BuildSystem) -> dict[str, bytes]:
    """The files with which the build fills the cache for a build system, without the project's sources."""
    pyproject = {
        "build-system": {"requires": list(system.requires), "build-backend": system.backend or "in-tree"},
        "project": {"name": "build-requirements", "version": "0"},
    }
    return {
        f"{folder}/pyproject.toml": tomli_w.dumps(pyproject).encode(),
        f"{folder}/requires.txt": "".join(f"{line}\n" for line in system.requires).encode(),
        f"{folder}/constraints.txt": "".join(f"{line}\n" for line in system.constraints).encode(),
    }


def _dockerfile(plan: ImagePlan) -> str:
    return render_template("image.Dockerfile.j2", plan)


def render_template(name: str, plan: ImagePlan, **values: object) -> str:
    """Render a template of `dockerfiles/` for a plan; `values` are what it needs besides."""
    packages = plan.selection.packages
    return (
        _templates()
        .get_template(name)
        .render(
            plan=plan,
            cell=plan.cell,
            environment=plan.environment,
            venv=VENV,
            cache=CACHE,
            selection=SELECTION,
            tools=TOOLS,
            python_links=PYTHON_LINKS,
            system_python=SYSTEM_PYTHON,
            has_uv_settings=bool(settings_of(plan.selection)),
            ca=f"{SECRETS}/{CA_SECRET}",
            ca_secret=CA_SECRET,
            ca_bundle=CA_BUNDLE,
            netrc=f"{SECRETS}/{NETRC_SECRET}",
            netrc_secret=NETRC_SECRET,
            ssh_key=f"{SECRETS}/{SSH_KEY_SECRET}",
            ssh_key_secret=SSH_KEY_SECRET,
            known_hosts=f"{SECRETS}/{KNOWN_HOSTS_SECRET}",
            known_hosts_secret=KNOWN_HOSTS_SECRET,
            uv_python=plan.cell.uv_python,
            # uv takes `python3` for a wish that no free-threaded Python fulfils; not every base has a `python`.
            python="python3" if plan.cell.interpreter.is_usual else "python",
            uv_pythons=UV_PYTHONS,
            uv_python_settings=f"{SECRETS}/{UV_PYTHON_SECRET}",
            uv_python_secret=UV_PYTHON_SECRET,
            programs=PROGRAMS,
            git_credential=_GIT_CREDENTIAL,
            sources=[package.name for package in packages if package.artifact != "wheel"],
            has_pip=any(package.name == "pip" for package in packages),
            **values,
        )
    )


def _status_script(plan: ImagePlan) -> str:
    return render_template("prebuilt-status.j2", plan)


@lru_cache(maxsize=1)
def template_digest() -> str:
    """The first digits of a SHA-256 over all templates and the scripts that are copied into contexts."""
    hashed = hashlib.sha256()
    for path in sorted(path for path in _template_folder().rglob("*") if path.suffix in {".j2", ".py"}):
        hashed.update(path.name.encode() + b"\0" + path.read_bytes())
    return hashed.hexdigest()[:KEY_LENGTH]


def template_bytes(name: str) -> bytes:
    """The content of a file of `dockerfiles/` that is no template."""
    return (_template_folder() / name).read_bytes()


def _template_folder() -> Path:
    package = Path(__file__).parent.parent
    packaged, checkout = package / "dockerfiles", package.parent / "dockerfiles"
    return packaged if packaged.is_dir() else checkout


@lru_cache(maxsize=1)
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_template_folder()),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - a Dockerfile is not HTML; every value goes through a filter below
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["sh"] = shell_quoted
    environment.filters["env"] = dockerfile_quoted
    return environment


def shell_quoted(value: object) -> str:
    """Quote a value as one word of a POSIX shell, for a line of a Dockerfile's RUN."""
    text = str(value)
    _refuse_line_breaks(text)
    return shlex.quote(text)


def dockerfile_quoted(value: object) -> str:
    """Quote a value as one double-quoted word of LABEL or ENV, without variable expansion."""
    text = str(value)
    _refuse_line_breaks(text)
    return json.dumps(text, ensure_ascii=False).replace("$", "\\$")


def _refuse_line_breaks(text: str) -> None:
    # The parsers reject them already; here one would begin a new instruction.
    if any(character in text for character in "\r\n\0"):
        raise BuilderError(f"{text!r} cannot be written to a Dockerfile: it contains a line break")
