"""A parsed matrix: its platform, its cells, and how to narrow it to some of them."""

from __future__ import annotations

import platform as host
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from builder.contract import KEY_LENGTH, UNVERIFIED
from builder.errors import UsageError, listed
from builder.index_mirror import IndexMirrors
from builder.matrix.interpreter import Interpreter, PythonSource, UvPython
from builder.matrix.schema import Coordinates, Family, Install, Profile, Ssh
from builder.oci.reference import ImageRef, Mirrors

_GLIBC_MINORS: Final = (17, 28, *range(31, 41))  # for which uv has a name
_ARCHITECTURES: Final[Mapping[str, str]] = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, kw_only=True)
class Platform:
    """Operating system and architecture of an image, as Docker names them."""

    architecture: str

    @classmethod
    def from_str(cls, text: str) -> Platform:
        """Parse `linux/amd64` or `linux/arm64`; raise UsageError for any other."""
        system, _, architecture = text.partition("/")
        architecture = "arm64" if architecture == "arm64/v8" else architecture
        if system != "linux" or architecture not in _ARCHITECTURES:
            raise UsageError(
                f"unsupported platform {text!r}",
                hint="use linux/amd64 or linux/arm64",
            )
        return cls(architecture=architecture)

    @classmethod
    def of_this_machine(cls) -> Platform:
        """The platform whose images run on this machine without emulation."""
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
    """A combination of a Python version, a base layer and perhaps a profile, with its settings from the matrix.

    `uv_python` is the exact Python that uv installs, once it is known; None if the Python is the base's own.
    """

    python: str
    base: str
    image: ImageRef
    family: Family
    libc: str
    packages: tuple[str, ...]
    platform: Platform
    build_packages: tuple[str, ...] = ()
    profile: str = ""
    user: str = ""  # of the image; empty for that of the base
    platforms: tuple[Platform, ...] = ()  # all those that share its tag, if the matrix has several
    python_source: PythonSource = "base"
    uv_python: UvPython | None = None

    @property
    def interpreter(self) -> Interpreter:
        """The Python that the matrix asks for."""
        return Interpreter.from_str(self.python)

    @property
    def place(self) -> Coordinates:
        """Where it is in the matrix."""
        return Coordinates(self.python, self.base, self.profile)

    @property
    def tag(self) -> str:
        """`<python>-<base>`, with `-<profile>` if it has one: the moving tag, of its image, or an index of several."""
        return self.place.name

    @property
    def name(self) -> str:
        """The tag, and with several platforms the architecture."""
        return f"{self.tag}-{self.platform.architecture}" if self.platforms else self.tag

    @property
    def selector(self) -> str:
        """The argument of `--only` that selects this cell, on all platforms."""
        return ",".join(f"{axis}={value}" for axis, value in self.place._asdict().items() if value)

    @property
    def uv_platform(self) -> str:
        """What its wheels have to fit, as uv's `--python-platform` names it: with the newest glibc that uv knows."""
        machine = self.platform.machine
        if self.family == "alpine":
            return f"{machine}-unknown-linux-musl"
        minor = int(self.libc.split(".")[1])
        return f"{machine}-manylinux_2_{max(known for known in _GLIBC_MINORS if known <= max(minor, 17))}"


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A parsed matrix: its cells in file order, and the settings that they share."""

    source: str
    repository: str | None
    cells: tuple[Cell, ...]
    uv: ImageRef
    install: Install
    profiles: Mapping[str, Profile]
    link_mode: str
    refresh: str
    compression: Literal["gzip", "zstd"]
    cache: Literal["none", "registry"]
    layers: str | None
    max_layers: int
    insecure: tuple[str, ...]
    aliases: tuple[tuple[str, str], ...]
    mirrors: Mirrors
    credentials: tuple[tuple[str, str, str], ...] = ()  # host, user name, name of the variable with the password
    ssh: Ssh | None = None
    index_mirrors: IndexMirrors = field(default_factory=IndexMirrors)
    ca: bytes = b""  # certificates that the images trust, in PEM
    tools: tuple[str, ...] = ()  # requirements (PEP 508) of what no lock has
    branch: str = ""

    def install_of(self, profile: str) -> Install:
        """What the cells of a profile install."""
        return self.profiles.get(profile, self.install)

    def only(self, selectors: Iterable[str]) -> Matrix:
        """Keep the cells that match one of the selectors, such as `python=3.13,base=alpine`; without any, keep all."""
        selected = [_coordinates(selector) for selector in selectors]
        for coordinates in selected:
            if not any(_matches(cell, coordinates) for cell in self.cells):
                text = ",".join(f"{axis}={value}" for axis, value in coordinates.items())
                raise UsageError(
                    f"--only {text} matches no cell of {self.source}",
                    hint=f"cells: {listed([cell.name for cell in self.cells])}",
                )
        cells = tuple(
            cell for cell in self.cells if not selected or any(_matches(cell, coordinates) for coordinates in selected)
        )
        return self.with_cells(cells)

    def with_cells(self, cells: Iterable[Cell]) -> Matrix:
        """Keep these cells, and their aliases."""
        kept = tuple(cells)
        names = {cell.tag for cell in kept}
        return replace(self, cells=kept, aliases=tuple(pair for pair in self.aliases if pair[1] in names))

    def on(self, platform: Platform) -> Matrix:
        """The same cells for another platform; of a matrix with several, those for this one. Raises UsageError."""
        several = self.cells[0].platforms
        if not several:
            return replace(self, cells=tuple(replace(cell, platform=platform) for cell in self.cells))
        if platform not in several:
            raise UsageError(
                f"{platform} is none of the platforms of {self.source}",
                hint=f"its platforms: {listed([str(each) for each in several])}",
            )
        return self.with_cells(cell for cell in self.cells if cell.platform == platform)

    def by_tag(self) -> Matrix:
        """A cell for each tag, with any one of the platforms, for those who only name the tags."""
        cells = {cell.tag: replace(cell, platforms=()) for cell in self.cells}
        return replace(self, cells=tuple(cells.values()))

    def on_branch(self, name: str) -> Matrix:
        """The same cells with the branch's own tags, `<tag>-<slug>`; the slug is made like GitLab's CI_COMMIT_REF_SLUG.

        Raises UsageError if such a tag could be mistaken for another one.
        """
        slug = branch_slug(name)
        tags = [*(cell.tag for cell in self.cells), *(alias for alias, _ in self.aliases)]
        taken = [tag for tag in tags if f"{tag}-{slug}" in tags]
        if taken:
            raise _wrong_branch(name, f"its tag {taken[0]}-{slug} is already in the matrix")
        if any(slug.startswith(f"{profile}-") for profile in self.profiles):
            raise _wrong_branch(name, "its tags could be mistaken for those of a profile")
        return replace(self, branch=slug)

    def moving_tags(self, cell: Cell) -> tuple[str, ...]:
        """The tags that jobs use: the cell's tag and the aliases; on a branch, followed by its slug."""
        tags = (cell.tag, *(alias for alias, tag in self.aliases if tag == cell.tag))
        return tuple(f"{tag}-{self.branch}" for tag in tags) if self.branch else tags


def _matches(cell: Cell, coordinates: Mapping[str, str]) -> bool:
    return all(getattr(cell, axis) == value for axis, value in coordinates.items())


def _coordinates(selector: str) -> dict[str, str]:
    coordinates: dict[str, str] = {}
    for part in selector.split(","):
        axis, equals, value = part.strip().partition("=")
        if axis not in Coordinates._fields or not equals or not value or axis in coordinates:
            raise UsageError(
                f"--only {selector!r} does not select cells",
                hint="write python=3.13 or python=3.13,base=alpine",
            )
        coordinates[axis] = value
    return coordinates


def branch_slug(name: str) -> str:
    """The suffix of a branch's tags, made like CI_COMMIT_REF_SLUG; raise UsageError if the name gives no usable one."""
    slug = re.sub("[^a-z0-9]", "-", name.lower())[:63].strip("-")
    if not slug or re.fullmatch(rf"[0-9a-f]{{{KEY_LENGTH}}}(-{UNVERIFIED})?", slug):  # as immutable tags end
        raise _wrong_branch(name, "its tags could be mistaken for others")
    return slug


def _wrong_branch(name: str, why: str) -> UsageError:
    return UsageError(f"--branch {name!r}: {why}", hint="use another name, such as mr-42")
