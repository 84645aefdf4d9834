"""The format of `matrix.toml`. The parser and the JSON Schema both come from these models."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Final, Literal, NamedTuple, cast

from pydantic import BaseModel, ConfigDict, Field

from builder.matrix.facts import family_of, libc_of
from builder.matrix.interpreter import PythonSource
from builder.matrix.value import (
    Host,
    ImageText,
    IndexMirrorTable,
    LibcVersion,
    MirrorTable,
    PackageName,
    PythonVersion,
    RepositoryText,
    TagText,
    ToolText,
    UserName,
    UvVersion,
    VariableName,
)

SCHEMA_URL: Final = "https://json-schema.org/draft/2020-12/schema"
DEFAULT_PROFILE: Final = "default"  # what [install] chooses, in a matrix with profiles
SCHEMA_ID: Final = "urn:prebuilt:matrix"  # where nobody has published it
Family = Literal["debian", "alpine", "rhel", "wolfi"]
Names = tuple[str, ...] | Literal["all"]
PlatformName = Literal["linux/amd64", "linux/arm64"]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=False)


class Coordinates(NamedTuple):
    """Where a cell is in the matrix. The profile is empty if the matrix has none."""

    python: str
    base: str
    profile: str

    @property
    def name(self) -> str:
        """The cell's name, which is also its moving tag: `<python>-<base>`, and the profile unless it is `default`."""
        suffix = "" if self.profile in {"", DEFAULT_PROFILE} else f"-{self.profile}"
        return f"{self.python}-{self.base}{suffix}"


class Exclusion(_Table):
    """Cells to leave out: those that match every axis given here."""

    python: PythonVersion | None = None
    base: TagText | None = None
    profile: TagText | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it names no axis."""
        return (self.python, self.base, self.profile) == (None, None, None)

    def matches(self, place: Coordinates) -> bool:
        """Whether the cell there is excluded."""
        given = Coordinates(self.python or place.python, self.base or place.base, self.profile or place.profile)
        return not self.is_empty and given == place


class Install(_Table):
    """Which locked dependencies to install."""

    groups: Names = Field(
        (), description='Dependency groups to install besides the default ones; "all" for every group'
    )
    extras: Names = Field((), description='Extras of the project to install; "all" for every extra')
    default_groups: bool = Field(
        True, alias="default-groups", description="Whether to install the project's default groups (uv: dev)"
    )
    only_groups: tuple[str, ...] = Field(
        (), alias="only-groups", description="Dependency groups to install without the project's own dependencies"
    )
    cache_groups: Names = Field(
        (),
        alias="cache-groups",
        description='Dependency groups to have in the cache only, for jobs that sync with them; "all" for every group',
    )
    packages: Names = Field(
        (),
        description='Workspace members whose dependencies to install; by default the root\'s; "all" for every member',
    )
    allow_source: bool = Field(
        True, alias="allow-source", description="Whether packages that have no fitting wheel may be built from source"
    )

    @property
    def is_default(self) -> bool:
        """Whether nothing is chosen, so that the lock may be of a kind without choices."""
        return not (self.groups or self.extras or self.only_groups or self.cache_groups or self.packages)


class Profile(Install):
    """Another choice of locked dependencies, with images of its own: their tags end with its name."""

    lock: str | None = Field(
        None, min_length=1, description="The lock of these images, relative to the matrix; by default that of all"
    )


class Base(_Table):
    """A base layer: an image that contains Python, or one for which uv installs it."""

    image: ImageText = Field(description="Image reference; {python} stands for the Python version of the cell")
    family: Family | None = Field(
        None, description="Distribution family: decides the package manager and the libc; by default as the name tells"
    )
    python_source: PythonSource = Field("base", alias="python-source", description="Whose Python: the image's, or uv's")
    packages: tuple[PackageName, ...] = Field((), description="System packages to install")
    user: UserName | None = Field(
        None, description="User of the image, by name or uid, who is created if missing; by default that of the base"
    )
    build_packages: tuple[PackageName, ...] = Field(
        (),
        alias="build-packages",
        description="System packages with which sources are built, such as compilers; they are not in the image",
    )
    libc: LibcVersion | None = Field(
        None,
        description="Version of its glibc or musl; builder knows it for Debian, Ubuntu and Alpine releases",
    )

    @property
    def known_libc(self) -> str | None:
        """Its libc as given, or as judged by the image's name; None if unknown."""
        return self.libc or (libc_of(self.image, self.known_family) if self.known_family else None)

    @property
    def known_family(self) -> Family | None:
        """Its family as given, or as judged by the image's name; None if unknown."""
        return self.family or cast("Family | None", family_of(self.image))


class Credential(_Table):
    """What logs in to a host: package indexes and git over HTTPS."""

    username: str = Field(
        "__token__", pattern=r"^[^\s\"'#\\]+$", description='The user name, such as "gitlab-ci-token"'
    )
    password: VariableName = Field(description="The name of the environment variable that has the password or token")


class Ssh(_Table):
    """How builds log in to git servers over SSH."""

    known_hosts: VariableName = Field(
        alias="known-hosts", description="The name of the environment variable that names a known_hosts file"
    )
    key: VariableName | None = Field(
        None,
        description="The name of the variable that names a private key's file; by default the agent of SSH_AUTH_SOCK",
    )


class MatrixFile(_Table):
    """A matrix of Python versions and base layers; `builder` makes an image for each combination."""

    repository: RepositoryText | None = Field(
        None, description="Where to push the images; by default $CI_REGISTRY_IMAGE/ci or a local name"
    )
    python: tuple[PythonVersion, ...] = Field(description='Python versions, such as ["3.12", "3.13"]')
    base: tuple[TagText, ...] = Field(description="Names of base layers, each defined under [bases]")
    exclude: tuple[Exclusion, ...] = Field((), description="Cells to leave out")
    uv: UvVersion = Field(
        default_factory=lambda: version("uv"),
        description="uv version in the images; by default the version installed with builder",
    )
    uv_image: RepositoryText = Field(
        "ghcr.io/astral-sh/uv", alias="uv-image", description="Image that contains /uv and /uvx, without a tag"
    )
    platform: PlatformName | None = Field(None, description="Platform of the images; by default that of this machine")
    platforms: tuple[PlatformName, ...] = Field(
        (), description="Several platforms, in place of one: each tag names an index with an image for each"
    )
    link_mode: Literal["copy", "symlink", "hardlink"] = Field(
        "copy", alias="link-mode", description="How uv installs from the warm cache in a job (UV_LINK_MODE)"
    )
    refresh: Literal["daily", "weekly", "monthly", "never"] = Field(
        "never", description="How often to rebuild cells with system packages when no other input has changed"
    )
    compression: Literal["gzip", "zstd"] = Field("gzip", description="Compression of the layers that builder makes")
    cache: Literal["none", "registry"] = Field(
        "none", description="Where to cache the build steps of images with attestations, besides the engine"
    )
    layers: RepositoryText | None = Field(
        None, description="Where to store layers that images share; by default the images' repository and /layers"
    )
    max_layers: int = Field(
        100, alias="max-layers", ge=10, le=120, description="How many layers an image may have above those of its base"
    )
    insecure: tuple[str, ...] = Field(
        (), description="Registries to contact over plain HTTP; for those on this machine it is always used"
    )
    aliases: dict[TagText, TagText] = Field(
        default_factory=dict, description='More moving tags for cells: {"latest" = "3.13-bookworm-slim"}'
    )
    install: Install = Field(default_factory=lambda: Install())  # noqa: PLW0108 - mypy does not know the alias as a keyword
    tools: tuple[ToolText, ...] = Field(
        (), description='Tools that are not in the lock, each in an environment of its own: ["ruff", "pre-commit==4.*"]'
    )
    profiles: dict[TagText, Profile] = Field(
        default_factory=dict,
        description="More choices of what to install; with them, [install] has images only if it is there",
    )
    bases: dict[TagText, Base] = Field(default_factory=dict, description="Definitions of the base layers")
    ca: str | None = Field(
        None, description="File with CA certificates (PEM), relative to this file, that the images trust"
    )
    credentials: dict[Host, Credential] = Field(
        default_factory=dict,
        description='What logs in to hosts of packages: {"gitlab.example.com" = {password = "CI_JOB_TOKEN"}}',
    )
    ssh: Ssh | None = Field(None, description="How builds log in to git servers over SSH")
    index_mirrors: IndexMirrorTable = Field(
        default_factory=dict,
        alias="index-mirrors",
        description='Where to fetch files from that a lock names: {"https://files.example" = "https://mirror.example"}',
    )
    mirrors: MirrorTable = Field(
        default_factory=dict,
        description='Mirrors to use in place of registries: {"docker.io" = "mirror.example.com"}',
    )

    @property
    def places(self) -> tuple[Coordinates, ...]:
        """Where the matrix may have cells, in file order, excluded ones included."""
        axis = self.profile_axis
        return tuple(
            Coordinates(python, base, profile) for python in self.python for base in self.base for profile in axis
        )

    @property
    def profile_axis(self) -> tuple[str, ...]:
        """The names of the profiles, after `default` if the file has [install]; '' alone if it has no profiles."""
        if not self.profiles:
            return ("",)
        return (*([DEFAULT_PROFILE] if "install" in self.model_fields_set else []), *self.profiles)

    def excludes(self, place: Coordinates) -> bool:
        """Whether the cell there is excluded."""
        return any(exclusion.matches(place) for exclusion in self.exclude)


def schema(address: str = SCHEMA_ID) -> str:
    """Return the JSON Schema of `matrix.toml` (draft 2020-12), for editors, as text; `address` is its `$id`."""
    body = MatrixFile.model_json_schema(by_alias=True)
    # The default depends on the installed uv; the schema must not.
    body["properties"]["uv"].pop("default", None)
    return json.dumps({"$schema": SCHEMA_URL, "$id": address, **body}, indent=2, sort_keys=True) + "\n"
