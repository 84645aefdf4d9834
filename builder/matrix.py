"""`matrix.toml` → `Matrix` → cells. The models below are both the parser and the JSON Schema of the file."""

from __future__ import annotations

import json
import platform as host
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import tomli
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from builder.errors import MatrixError, UsageError, listed, near
from builder.refs import TAG_PATTERN, ImageRef, Mirrors

SCHEMA_URL: Final = "https://json-schema.org/draft/2020-12/schema"

# glibc of the Debian and Ubuntu releases that image names speak of: the newest manylinux a wheel may ask for.
GLIBC: Final[Mapping[str, str]] = {
    "bullseye": "2.31", "bookworm": "2.36", "trixie": "2.41",
    "focal": "2.31", "jammy": "2.35", "noble": "2.39",
}  # fmt: skip
MUSL: Final = "1.2"  # Alpine 3.13 and later
LONGEST_BASE: Final = 106  # characters, so that <python>-<base>-<key> is a tag

_PYTHON = r"3\.[0-9]{1,2}(\.[0-9]{1,3})?"
_UV = r"[0-9]+\.[0-9]+\.[0-9]+"
_LIBC = r"[0-9]+\.[0-9]+"
_PACKAGE = r"[A-Za-z0-9][A-Za-z0-9+._:@~<>=-]*"
_ARCHITECTURES: Final[Mapping[str, str]] = {"amd64": "x86_64", "arm64": "aarch64"}


def _matching(pattern: str, what: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"{text!r} is not {what}")
        return text

    return AfterValidator(check)


def _reference(text: str) -> str:
    try:
        ImageRef.from_str(text.replace("{python}", "3.13"))
    except UsageError as error:
        raise ValueError(str(error)) from error
    return text


def _repository(text: str) -> str:
    try:
        ref = ImageRef.from_str(text)
    except UsageError as error:
        raise ValueError(str(error)) from error
    if ref.tag or ref.digest:
        raise ValueError(f"{text!r} has a tag or digest; write the repository alone")
    return text


def _mirrors(table: dict[str, str]) -> dict[str, str]:
    try:
        Mirrors.from_mapping(table)
    except UsageError as error:
        raise ValueError(str(error)) from error
    return table


def _pattern(pattern: str) -> dict[str, Any]:
    return {"pattern": f"^{pattern}$"}


PythonVersion = Annotated[
    str,
    _matching(_PYTHON, 'a Python version; write "3.13", or "3.13.2" to pin the patch'),
    Field(json_schema_extra=_pattern(_PYTHON)),
]
UvVersion = Annotated[
    str,
    _matching(_UV, 'a uv version; write "0.13.8"'),
    Field(json_schema_extra=_pattern(_UV)),
]
LibcVersion = Annotated[
    str,
    _matching(_LIBC, 'a libc version; write "2.36"'),
    Field(json_schema_extra=_pattern(_LIBC)),
]
TagText = Annotated[
    str,
    _matching(
        TAG_PATTERN,
        "a tag; use letters, digits, '_', '.' and '-', at most 128, not beginning with '.' or '-'",
    ),
    Field(json_schema_extra=_pattern(TAG_PATTERN)),
]
PackageName = Annotated[
    str,
    _matching(_PACKAGE, 'a system package; write its name alone, such as "git" or "git=1:2.39.5-0"'),
    Field(json_schema_extra=_pattern(_PACKAGE)),
]
Names = tuple[str, ...] | Literal["all"]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=False)


class Exclusion(_Table):
    """Cells that are not built: those that match every axis named here."""

    python: PythonVersion | None = None
    base: TagText | None = None

    def matches(self, python: str, base: str) -> bool:
        """Whether the cell of these two coordinates is excluded."""
        names_an_axis = self.python is not None or self.base is not None
        return names_an_axis and self.python in {None, python} and self.base in {None, base}


class Install(_Table):
    """What of the lock goes into the images."""

    groups: Names = Field((), description='Dependency groups beside the default ones; "all" for every group')
    extras: Names = Field((), description='Extras of the project; "all" for every extra')
    default_groups: bool = Field(
        True, alias="default-groups", description="Whether the project's default groups (uv: dev) go in"
    )


class Base(_Table):
    """A base layer: an image with Python in it."""

    image: Annotated[str, AfterValidator(_reference)] = Field(
        description="Its reference; {python} stands for the Python version of the cell"
    )
    family: Literal["debian", "alpine"] = Field(description="Which package manager and libc it has")
    packages: tuple[PackageName, ...] = Field((), description="System packages to install")
    libc: LibcVersion | None = Field(
        None,
        description="Version of its glibc or musl; known for the images of Debian, Ubuntu and Alpine releases",
    )


class MatrixFile(_Table):
    """A matrix of Python versions and base layers for which `builder` makes images."""

    repository: Annotated[str, AfterValidator(_repository)] | None = Field(
        None, description="Where the images are pushed; $CI_REGISTRY_IMAGE/ci or a local name when not given"
    )
    python: tuple[PythonVersion, ...] = Field(description='Python versions, such as ["3.12", "3.13"]')
    base: tuple[TagText, ...] = Field(description="Names of base layers, each defined under [bases]")
    exclude: tuple[Exclusion, ...] = Field((), description="Cells that are not built")
    uv: UvVersion = Field(
        default_factory=lambda: version("uv"),
        description="uv version of the images; the one builder ships with by default",
    )
    uv_image: Annotated[str, AfterValidator(_repository)] = Field(
        "ghcr.io/astral-sh/uv", alias="uv-image", description="Image that holds /uv and /uvx, without a tag"
    )
    platform: Literal["linux/amd64", "linux/arm64"] | None = Field(
        None, description="Platform of the images; that of this machine when not given"
    )
    link_mode: Literal["copy", "symlink", "hardlink"] = Field(
        "copy", alias="link-mode", description="How uv in a job fills an environment from the warm cache"
    )
    refresh: Literal["daily", "weekly", "monthly", "never"] = Field(
        "never", description="How often cells with system packages are rebuilt although no other input moved"
    )
    compression: Literal["gzip", "zstd"] = Field(
        "gzip", description="How pushed layers are compressed; with zstd those of the base image too"
    )
    cache: Literal["none", "registry"] = Field(
        "none", description="Where build steps are cached beside the builder: registry, for runners that start empty"
    )
    insecure: tuple[str, ...] = Field(
        (), description="Registries that are asked over plain HTTP; those on this machine always are"
    )
    aliases: dict[TagText, TagText] = Field(
        default_factory=dict, description='More moving tags: {"latest" = "3.13-bookworm-slim"}'
    )
    install: Install = Field(default_factory=lambda: Install())  # noqa: PLW0108 - the alias is no keyword for mypy
    bases: dict[TagText, Base] = Field(default_factory=dict, description="Definitions of the base layers")
    mirrors: Annotated[dict[str, str], AfterValidator(_mirrors)] = Field(
        default_factory=dict,
        description='Registries that stand in for others: {"docker.io" = "mirror.example.com"}',
    )


def schema() -> str:
    """Return the JSON Schema of `matrix.toml` (draft 2020-12), for editors, as text."""
    body = MatrixFile.model_json_schema(by_alias=True)
    # The default moves with the uv that is installed; the schema must not.
    body["properties"]["uv"].pop("default", None)
    return json.dumps({"$schema": SCHEMA_URL, **body}, indent=2, sort_keys=True) + "\n"


@dataclass(frozen=True, kw_only=True)
class Platform:
    """Operating system and architecture of an image, in Docker's words."""

    architecture: str

    @classmethod
    def from_str(cls, text: str) -> Platform:
        """Parse `linux/amd64` or `linux/arm64`; raise UsageError on any other."""
        system, _, architecture = text.partition("/")
        architecture = "arm64" if architecture == "arm64/v8" else architecture
        if system != "linux" or architecture not in _ARCHITECTURES:
            raise UsageError(
                f"{text!r} is not a platform that images are made for",
                hint="write linux/amd64 or linux/arm64",
            )
        return cls(architecture=architecture)

    @classmethod
    def of_this_machine(cls) -> Platform:
        """The platform whose images run here without emulation."""
        machine = host.machine().lower()
        return cls(architecture="arm64" if machine in {"arm64", "aarch64"} else "amd64")

    @property
    def machine(self) -> str:
        """The architecture as `uname -m` and wheel tags name it."""
        return _ARCHITECTURES[self.architecture]

    def __str__(self) -> str:
        return f"linux/{self.architecture}"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One (Python version, base layer) of the matrix, with all that is said of it there."""

    python: str
    base: str
    image: ImageRef
    family: Literal["debian", "alpine"]
    libc: str
    packages: tuple[str, ...]
    platform: Platform

    @property
    def name(self) -> str:
        """`<python>-<base>`: the moving tag too."""
        return f"{self.python}-{self.base}"


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A parsed matrix: its cells in file order, and what holds for all of them."""

    source: str
    repository: str | None
    cells: tuple[Cell, ...]
    uv: ImageRef
    install: Install
    link_mode: str
    refresh: str
    compression: Literal["gzip", "zstd"]
    cache: Literal["none", "registry"]
    insecure: tuple[str, ...]
    aliases: tuple[tuple[str, str], ...]
    mirrors: Mirrors
    branch: str = ""

    def only(self, texts: Iterable[str]) -> Matrix:
        """Narrow to the cells that match one of the `python=3.13,base=alpine` texts; none given keeps all."""
        wanted = [_coordinates(text) for text in texts]
        cells = tuple(
            cell for cell in self.cells
            if not wanted or any(all(getattr(cell, axis) == value for axis, value in each.items()) for each in wanted)
        )  # fmt: skip
        for each in wanted:
            if not any(all(getattr(cell, axis) == value for axis, value in each.items()) for cell in self.cells):
                text = ",".join(f"{axis}={value}" for axis, value in each.items())
                raise UsageError(
                    f"--only {text} matches no cell of {self.source}",
                    hint=f"cells: {listed([c.name for c in self.cells])}",
                )
        names = {cell.name for cell in cells}
        return replace(self, cells=cells, aliases=tuple(pair for pair in self.aliases if pair[1] in names))

    def on(self, platform: Platform) -> Matrix:
        """The same cells for another platform."""
        return replace(self, cells=tuple(replace(cell, platform=platform) for cell in self.cells))

    def on_branch(self, name: str) -> Matrix:
        """The same cells under a branch's own tags: `<tag>-<slug>`, the slug as GitLab's CI_COMMIT_REF_SLUG has it.

        Raises UsageError where such a tag could be taken for another one.
        """
        slug = re.sub("[^a-z0-9]", "-", name.lower())[:63].strip("-")
        tags = [*(cell.name for cell in self.cells), *(alias for alias, _ in self.aliases)]
        taken = [tag for tag in tags if f"{tag}-{slug}" in tags]
        if not slug or taken or re.fullmatch("[0-9a-f]{12}", slug):
            why = f"{taken[0]}-{slug} is a tag already" if taken else "its tags could not be told from others"
            raise UsageError(f"--branch {name!r}: {why}", hint="give it another name, such as mr-42")
        return replace(self, branch=slug)

    def moving_tags(self, cell: Cell) -> tuple[str, ...]:
        """The tags that jobs name: `<python>-<base>` and the aliases, on a branch with its slug behind them."""
        tags = (cell.name, *(alias for alias, name in self.aliases if name == cell.name))
        return tuple(f"{tag}-{self.branch}" for tag in tags) if self.branch else tags


def _coordinates(text: str) -> dict[str, str]:
    wanted: dict[str, str] = {}
    for part in text.split(","):
        axis, equals, value = part.strip().partition("=")
        if axis not in {"python", "base"} or not equals or not value or axis in wanted:
            raise UsageError(
                f"--only {text!r} is not a choice of cells",
                hint="write python=3.13 or python=3.13,base=alpine",
            )
        wanted[axis] = value
    return wanted


BUILT_IN = """\
python = ["{python}"]
base = ["bookworm-slim"]

[bases.bookworm-slim]
image = "docker.io/library/python:{{python}}-slim-bookworm"
family = "debian"
"""


def built_in(python: str) -> Matrix:
    """The matrix of a project that has none: one cell, the given Python on bookworm-slim."""
    return parse(BUILT_IN.format(python=python), source="the built-in matrix")


def read(path: Path) -> Matrix:
    """Read and parse a matrix file; raise MatrixError with every fault that it has."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise MatrixError(f"{path} is not TOML: it is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise MatrixError(
            f"cannot read {path}: {error.strerror}",
            hint="name the matrix with -f, or leave it out to use the built-in one",
        ) from error
    return parse(text, source=str(path))


def parse(text: str, *, source: str) -> Matrix:
    """Parse the text of a matrix file; raise MatrixError with every fault that it has."""
    try:
        table = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise MatrixError(f"{source} is not TOML: {error}") from error
    try:
        # Strict mode takes JSON's arrays for tuples, and Python's lists not.
        file = MatrixFile.model_validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        faults = [_fault(details) for details in error.errors()]
        raise _matrix_error(source, [*faults, *_axis_faults(table)]) from error
    faults = [*_axis_faults(table), *_cell_faults(file)]
    if faults:
        raise _matrix_error(source, faults)
    return _matrix(file, source)


def _matrix_error(source: str, faults: Sequence[str]) -> MatrixError:
    unique = list(dict.fromkeys(faults))
    head = f"{source} has {len(unique)} faults:" if len(unique) > 1 else f"{source}:"
    return MatrixError("\n  ".join([head, *(fault.replace("\n", "\n    ") for fault in unique)]))


def _fault(details: ErrorDetails) -> str:
    path = [str(part) for part in details["loc"] if not str(part).startswith(("tuple[", "literal["))]
    where = ".".join(path)
    if details["type"] == "extra_forbidden":
        known = _known_keys(path[:-1])
        return f"{where}: unknown key{near(path[-1], known)}; known here: {', '.join(sorted(known))}"
    if details["type"] == "missing":
        return f"{where}: missing; it is required"
    if details["type"] == "value_error":
        return f"{where}: {details['ctx']['error']}"
    said = details["msg"].replace("an object", "a table")  # JSON's word for it
    return f"{where}: {said[0].lower()}{said[1:]}, not {details['input']!r}"


def _known_keys(path: Sequence[str]) -> set[str]:
    """The keys of the table at this path, which leads through models, their tables and their arrays."""
    model: Any = MatrixFile
    for part in path:
        if isinstance(model, type) and issubclass(model, BaseModel):
            fields = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
            model = fields.get(part)
        elif get_origin(model) in {dict, tuple}:
            model = get_args(model)[1 if get_origin(model) is dict else 0]
        if get_origin(model) in {Union, UnionType}:
            model = get_args(model)[0]
    if isinstance(model, type) and issubclass(model, BaseModel):
        return {field.alias or name for name, field in model.model_fields.items()}
    return set()


def _axis_faults(table: Mapping[str, Any]) -> Iterator[str]:
    """The faults of the two axes, which show even where other keys of the file are wrong."""
    for axis in ("python", "base"):
        values = table.get(axis)
        if not isinstance(values, list):
            continue
        if not values:
            yield f"{axis}: empty; name at least one"
        for value in dict.fromkeys(map(str, values)):
            if values.count(value) > 1:
                yield f"{axis}: {value!r} is there {values.count(value)} times; name it once"
    defined = table.get("bases", {})
    if isinstance(table.get("base"), list) and isinstance(defined, dict):
        for name in dict.fromkeys(map(str, table["base"])):
            if name not in defined:
                yield (
                    f"base: {name!r} has no definition{near(name, defined)}; add a table such as\n"
                    f'[bases.{name}]\nimage = "docker.io/library/python:{{python}}-slim-bookworm"\nfamily = "debian"'
                )


def _cell_faults(file: MatrixFile) -> Iterator[str]:
    """The faults between the keys of a file each of whose keys is right by itself."""
    for name, base in file.bases.items():
        if not _libc(base):
            yield f'bases.{name}.libc: missing, and not known for {base.image!r}; write it, such as libc = "2.36"'
        if len(name) > LONGEST_BASE:
            yield f"bases.{name}: too long for a tag with Python and key; use at most {LONGEST_BASE} characters"
    cells = [(python, base) for python in file.python for base in file.base]
    for index, exclusion in enumerate(file.exclude):
        if exclusion.python is None and exclusion.base is None:
            yield f"exclude.{index}: names no axis; write python, base or both"
        elif not any(exclusion.matches(*cell) for cell in cells):
            yield f"exclude.{index}: excludes no cell; mend it or take it out"
    kept = [f"{python}-{base}" for python, base in cells if not _excluded(file, python, base)]
    if cells and not kept:
        yield "exclude: every cell is excluded; leave at least one"
    for alias, cell in file.aliases.items():
        if kept and cell not in kept:
            yield f"aliases.{alias}: {cell!r} is not a cell{near(cell, kept)}; cells: {listed(kept)}"
        elif alias in kept:
            yield f"aliases.{alias}: is the name of a cell already"


def _excluded(file: MatrixFile, python: str, base: str) -> bool:
    return any(exclusion.matches(python, base) for exclusion in file.exclude)


def _libc(base: Base) -> str | None:
    if base.libc or base.family == "alpine":
        return base.libc or MUSL
    return next((glibc for release, glibc in GLIBC.items() if release in base.image), None)


def _matrix(file: MatrixFile, source: str) -> Matrix:
    platform = Platform.from_str(file.platform) if file.platform else Platform.of_this_machine()
    cells = []
    for python in file.python:
        for name in file.base:
            base = file.bases[name]
            libc = _libc(base)
            if _excluded(file, python, name) or libc is None:
                continue
            image = ImageRef.from_str(base.image.replace("{python}", python))
            cells.append(
                Cell(
                    python=python, base=name, image=image, family=base.family, libc=libc,
                    packages=base.packages, platform=platform,
                )
            )  # fmt: skip
    return Matrix(
        source=source,
        repository=file.repository,
        cells=tuple(cells),
        uv=ImageRef.from_str(file.uv_image).with_tag(file.uv),
        install=file.install,
        link_mode=file.link_mode,
        refresh=file.refresh,
        compression=file.compression,
        cache=file.cache,
        insecure=file.insecure,
        aliases=tuple(sorted(file.aliases.items())),
        mirrors=Mirrors.from_mapping(file.mirrors),
    )
