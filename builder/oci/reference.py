"""OCI names: image references, tags, digests, and mirrors of registries.

The grammar is that of github.com/distribution/reference: the first path component names a registry if it contains a dot
or a colon, or is `localhost`; otherwise the registry is docker.io.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from builder.errors import UsageError

DOCKER_HUB: Final = "docker.io"
TAG_PATTERN: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_TAG = re.compile(TAG_PATTERN)
_DIGEST = re.compile(r"(?P<algorithm>sha256):(?P<hex>[0-9a-f]{64})|(?P<algorithm512>sha512):(?P<hex512>[0-9a-f]{128})")
_REGISTRY = re.compile(
    r"(?:(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])(?:\.(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9]))*"
    r"|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
)
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")


def _names_a_registry(component: str) -> bool:
    return "." in component or ":" in component or component == "localhost"


def has_registry(text: str) -> bool:
    """Whether the text begins with the name of a registry and a slash."""
    first, slash, _ = text.partition("/")
    return bool(slash) and _names_a_registry(first)


def is_tag(text: str) -> bool:
    """Whether the text is a valid tag (distribution specification, "Pulling manifests")."""
    return _TAG.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Whether the text is `sha256:` and 64 hexadecimal digits, or `sha512:` and 128."""
    return _DIGEST.fullmatch(text) is not None


@dataclass(frozen=True, kw_only=True, order=True)
class Digest:
    """A content digest: `sha256:<64 hex>` or `sha512:<128 hex>`."""

    algorithm: str
    hex: str

    @classmethod
    def from_str(cls, text: str) -> Digest:
        """Parse `algorithm:hex`; raise UsageError if the text is anything else."""
        if not is_digest(text):
            raise UsageError(f"{text!r} is not a digest", hint="write sha256: and 64 hexadecimal digits")
        algorithm, _, hexadecimal = text.partition(":")
        return cls(algorithm=algorithm, hex=hexadecimal)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


@dataclass(frozen=True, kw_only=True)
class ImageRef:
    """An image reference: a registry, a repository, and optionally a tag, a digest or both."""

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def from_str(cls, text: str) -> ImageRef:
        """Parse a reference as Docker does; raise UsageError, which says which part is wrong."""
        if "$" in text:
            raise UsageError(
                f"{text!r} is not an image reference: variables are not expanded here",
                hint="write the name itself; the default repository is $CI_REGISTRY_IMAGE/ci, and BUILDER_MIRRORS "
                "names other registries to fetch from",
            )
        name, at, digest = text.partition("@")
        head, slash, last = name.rpartition("/")
        last, colon, tag = last.partition(":")
        name = f"{head}{slash}{last}"
        if colon and not is_tag(tag):
            raise UsageError(
                f"{text!r} is not an image reference: {tag!r} is not a tag",
                hint="a tag has letters, digits, '_', '.' and '-', at most 128, and does not begin with '.' or '-'",
            )
        first, slash, rest = name.partition("/")
        registry, repository = (first, rest) if slash and _names_a_registry(first) else (DOCKER_HUB, name)
        if registry == "index.docker.io":
            registry = DOCKER_HUB
        if registry == DOCKER_HUB and "/" not in repository:
            repository = f"library/{repository}"
        if not _REGISTRY.fullmatch(registry):
            raise UsageError(
                f"{text!r} is not an image reference: {registry!r} is not a registry",
                hint="a registry is a host name with an optional port, such as registry.example.com:5000",
            )
        if not all(_COMPONENT.fullmatch(part) for part in repository.split("/")) or len(repository) > 255:
            raise UsageError(
                f"{text!r} is not an image reference: {repository!r} is not a repository",
                hint="use lower-case letters and digits, separated by '.', '_', '-' or '/'",
            )
        return cls(
            registry=registry,
            repository=repository,
            tag=tag or None,
            digest=Digest.from_str(digest) if at else None,
        )

    @property
    def name(self) -> str:
        """The reference without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar(self) -> str:
        """The short form, without the `docker.io` and `library` that Docker adds."""
        return str(self).removeprefix(f"{DOCKER_HUB}/library/").removeprefix(f"{DOCKER_HUB}/")

    def with_tag(self, tag: str) -> ImageRef:
        """Return the same repository with another tag and without a digest."""
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: Digest) -> ImageRef:
        """Return the same reference, pinned to the digest."""
        return replace(self, digest=digest)

    def without_tag(self) -> ImageRef:
        """Return the same repository and digest without the tag."""
        return replace(self, tag=None)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


@dataclass(frozen=True, kw_only=True)
class Mirrors:
    """Which registry, or path in one, replaces which; the longest match wins."""

    table: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, str]) -> Mirrors:
        """Make mirrors from `{"docker.io": "localhost:5000"}`; either side may have a path.

        Raises UsageError if a side does not name a registry.
        """
        for source, target in mapping.items():
            if "@" in source + target:
                raise UsageError("a mirror has a user name or password", hint="leave it out; docker login stores it")
            for side in (source, target):
                host = side.split("/")[0]
                if not (_REGISTRY.fullmatch(host) and _names_a_registry(host)) or side.endswith("/"):
                    raise UsageError(
                        f"{side!r} in the mirror {source}={target} is not a registry",
                        hint="write docker.io=mirror.example.com, without a scheme or a trailing slash",
                    )
        return cls(table=tuple(sorted(mapping.items(), key=lambda pair: -len(pair[0]))))

    @classmethod
    def from_strs(cls, texts: Iterable[str]) -> Mirrors:
        """Parse texts such as `docker.io=localhost:5000`, each with one or several mirrors separated by commas."""
        mapping = {}
        texts = tuple(texts)
        if any("@" in joined for joined in texts):  # its parts may be parts of a password
            raise UsageError("a mirror has a user name or password", hint="leave it out; docker login stores it")
        for text in (part.strip() for joined in texts for part in joined.split(",") if part.strip()):
            source, equals, target = text.partition("=")
            if not (source and equals and target):
                raise UsageError(f"{text!r} is not a mirror", hint="write docker.io=mirror.example.com")
            mapping[source.strip()] = target.strip()
        return cls.from_mapping(mapping)

    def over(self, other: Mirrors) -> Mirrors:
        """Return both tables merged; entries of this one replace the other's."""
        return Mirrors.from_mapping({**dict(other.table), **dict(self.table)})

    def locate(self, ref: ImageRef) -> ImageRef:
        """Return the reference to fetch it from: on the mirror if there is one, else itself."""
        for source, target in self.table:
            if ref.name == source or ref.name.startswith(f"{source}/"):
                located = ImageRef.from_str(target + ref.name.removeprefix(source))
                return replace(located, tag=ref.tag, digest=ref.digest)
        return ref
