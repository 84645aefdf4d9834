"""Any lock file → `Lock` (PEP 751); `select(lock, cell)` → `Selection`, the exact artifacts of one cell.

`uv.lock` is never read here: uv exports it (`uv export --format pylock.toml`). Local packages (the project, workspace
members, path dependencies) are left to the job, which has their sources; only their build systems are of interest.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import tomli
from packaging.markers import Environment
from packaging.pylock import (
    Package,
    PackageArchive,
    PackageDirectory,
    PackageSdist,
    PackageVcs,
    PackageWheel,
    Pylock,
    PylockSelectError,
    PylockUnsupportedVersionError,
    PylockValidationError,
    is_valid_pylock_path,
)
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags
from uv import find_uv_bin

from builder import requirements
from builder.command import redact, run
from builder.errors import LockError, listed, near
from builder.index import without_credentials
from builder.matrix import Cell, Install

Kind = Literal["uv.lock", "pylock.toml", "requirements.txt"]
Artifact = Literal["wheel", "sdist", "archive", "vcs"]
_RemoteSource = PackageWheel | PackageSdist | PackageArchive | PackageVcs
_Source = _RemoteSource | PackageDirectory
_Value = TypeVar("_Value")

# A cell that names no patch release stands for the newest one, whichever it is when the base image is pulled.
NEWEST_PATCH: Final = 99

# The minor releases of Python 3 that a project without a matrix may get.
NEWEST_PYTHON: Final = 14
OLDEST_PYTHON: Final = 8

# A package without [build-system] is built by setuptools (PEP 517, "Source trees").
_DEFAULT_BUILD_SYSTEM: Final[Mapping[str, Any]] = {
    "requires": ["setuptools >= 40.8.0"], "build-backend": "setuptools.build_meta:__legacy__",
}  # fmt: skip

# What of [tool.uv] decides where a build backend comes from and which version of it.
_INDEX_SETTINGS: Final = (
    "index",
    "index-url",
    "extra-index-url",
    "no-index",
    "index-strategy",
    "exclude-newer",
)

_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s;]+", re.IGNORECASE)

_LEGACY_MANYLINUX: Final[Mapping[tuple[str, int], str]] = {
    ("x86_64", 17): "manylinux2014_x86_64", ("x86_64", 12): "manylinux2010_x86_64", ("x86_64", 5): "manylinux1_x86_64",
    ("aarch64", 17): "manylinux2014_aarch64",
}  # fmt: skip
_OLDEST_GLIBC: Final[Mapping[str, int]] = {"x86_64": 5, "aarch64": 17}


@dataclass(frozen=True, kw_only=True)
class BuildSystem:
    """What a local package needs in order to be built: its `[build-system]`, and the project's constraints on that.

    `backend` is empty where the backend lies in the package's own sources.
    """

    requires: tuple[str, ...]
    backend: str
    constraints: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SelectedPackage:
    """A package of a selection and the one file of it that is installed.

    `source` is the artifact's table as PEP 751 writes it; `size` is in bytes, where the lock says it.
    """

    name: str
    version: str | None
    artifact: Artifact
    filename: str
    size: int | None
    index: str | None
    source: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The exact artifacts of the lock that one cell installs, by name, and what else a build of them needs to know.

    `build_systems` are those of the local packages; `uv_settings` say, in the words of `uv.toml`, which index the
    requirements of builds come from. `uv_flags` are what a job adds to `uv sync` to get the same packages.
    """

    cell: Cell
    lock_kind: Kind
    lock_name: str
    uv_flags: tuple[str, ...]
    packages: tuple[SelectedPackage, ...]
    build_systems: tuple[BuildSystem, ...]
    uv_settings: Mapping[str, Any]

    @property
    def download_size(self) -> int | None:
        """Bytes to download, or None where the lock leaves a size out."""
        sizes = [package.size for package in self.packages]
        return None if None in sizes else sum(size for size in sizes if size is not None)


@dataclass(frozen=True, kw_only=True)
class Lock:
    """A lock file, parsed: `uv_flags` are what a job adds to `uv sync`, or `uv pip sync`, to get the same packages."""

    path: Path
    kind: Kind
    pylock: Pylock
    extras: tuple[str, ...]
    groups: tuple[str, ...]
    uv_flags: tuple[str, ...] = ()

    @property
    def project(self) -> Path:
        """The folder that the lock belongs to."""
        return self.path.parent


def kind_of(path: Path) -> Kind:
    """Tell a lock's kind by its name; raise LockError on a name that no lock has."""
    if path.name == "uv.lock":
        return "uv.lock"
    if is_valid_pylock_path(path):
        return "pylock.toml"
    if path.suffix in {".txt", ".in"}:
        return "requirements.txt"
    raise LockError(
        f"{path} is not a lock file by its name",
        hint="builder reads uv.lock, pylock.toml (or pylock.<name>.toml) and hash-pinned requirements .txt files",
    )


def read(path: Path, install: Install) -> Lock:
    """Read a lock file of any kind; raise LockError that says what is wrong with it."""
    kind = kind_of(path)
    text = _text(path)
    if not text.strip():
        raise LockError(f"{path} is empty", hint=f"write it again, with {_WRITTEN_BY[kind]}")
    if kind == "uv.lock":
        return _read_uv_lock(path, text, install)
    if kind == "pylock.toml":
        return _read_pylock(path, text, install)
    if install.groups or install.extras:
        raise LockError(
            f"{path} has no groups or extras, and the matrix asks for {listed([*install.groups, *install.extras])}",
            hint="take install.groups and install.extras out of the matrix: a requirements file is installed whole",
        )
    table = requirements.to_pylock(path, text)
    return Lock(path=path, kind=kind, pylock=_pylock(path, table), extras=(), groups=())


_WRITTEN_BY: Final[Mapping[Kind, str]] = {
    "uv.lock": "`uv lock`",
    "pylock.toml": "`uv export --format pylock.toml`",
    "requirements.txt": "`uv pip compile --generate-hashes`",
}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise LockError(f"no lock file at {path}", hint="name it with --lock; `uv lock` writes one") from error
    except UnicodeDecodeError as error:
        raise LockError(f"{path} is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise LockError(f"cannot read {path}: {error.strerror}") from error


def _toml(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise LockError(f"{path} is not TOML: {error}") from error


def _pylock(path: Path, table: Mapping[str, Any]) -> Pylock:
    try:
        return Pylock.from_dict(table)
    except PylockUnsupportedVersionError as error:
        raise LockError(f"{path}: {error}", hint="builder reads lock-version 1.0 (PEP 751)") from error
    except PylockValidationError as error:
        raise LockError(f"{path} is not a PEP 751 lock: {error}") from error


def _read_uv_lock(path: Path, text: str, install: Install) -> Lock:
    if not (path.parent / "pyproject.toml").is_file():
        raise LockError(
            f"no pyproject.toml beside {path}",
            hint="a uv.lock is read together with the pyproject.toml that it locks",
        )
    flags = [
        *_choice("group", install.groups),
        *_choice("extra", install.extras),
        *([] if install.default_groups else ["--no-default-groups"]),
    ]
    # uv's own variables (UV_NO_DEV, UV_FROZEN, …) would change what is exported.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UV_") and name != "VIRTUAL_ENV"}
    argv = [
        find_uv_bin(), "export", "--frozen", "--offline", "--quiet", "--no-python-downloads", "--no-header",
        "--format", "pylock.toml", *flags,
    ]  # fmt: skip
    exported = run(argv, env=kept, cwd=path.parent)  # paths in the export are relative to the working directory
    if exported.returncode:
        said = redact(exported.stderr).strip().removeprefix("error: ") or f"uv export ended with {exported.returncode}"
        raise LockError(f"uv does not take {path}: {said}", hint=_uv_hint(said, text))
    return Lock(
        path=path, kind="uv.lock", pylock=_pylock(path, _toml(path, exported.stdout)),
        extras=(), groups=(), uv_flags=tuple(flags),
    )  # fmt: skip


def _uv_hint(said: str, text: str) -> str:
    if "not defined" in said or re.search("incompatible with the (declared )?conflicts", said):
        return "mend install.groups and install.extras in the matrix"
    if re.search(r"^version = ", text, re.MULTILINE) and "schema version" in said:
        return "the lock is newer than the uv that builder came with; upgrade builder"
    return "try `uv lock --check` in that folder"


def _choice(option: str, names: tuple[str, ...] | Literal["all"]) -> list[str]:
    if names == "all":
        return [f"--all-{option}s"]
    return [word for name in names for word in (f"--{option}", name)]


def _read_pylock(path: Path, text: str, install: Install) -> Lock:
    pylock = _pylock(path, _toml(path, text))
    defaults = list(pylock.default_groups or []) if install.default_groups else []
    named = _named(path, "group", install.groups, pylock.dependency_groups or [])
    groups = tuple(dict.fromkeys([*defaults, *named]))
    extras = tuple(_named(path, "extra", install.extras, pylock.extras or []))
    flags = (*_choice("group", groups), *_choice("extra", extras))
    return Lock(path=path, kind="pylock.toml", pylock=pylock, extras=extras, groups=groups, uv_flags=flags)


def _named(path: Path, what: str, names: tuple[str, ...] | Literal["all"], known: Sequence[str]) -> list[str]:
    for name in () if names == "all" else names:
        if name not in known:
            raise LockError(
                f"{path} has no {what} {name!r}{near(name, known)}",
                hint=f"{what}s there: {listed(list(known)) or 'none'}; mend install.{what}s in the matrix",
            )
    return list(known if names == "all" else names)


def select(lock: Lock, cell: Cell) -> Selection:
    """Choose, by marker and wheel tag, what the cell installs; raise LockError where the lock has nothing for it."""
    try:
        chosen = list(
            lock.pylock.select(
                environment=environment(cell),
                tags=wheel_tags(cell),
                extras=lock.extras,
                dependency_groups=lock.groups,
            )
        )
    except PylockSelectError as error:
        raise LockError(
            f"{lock.path} does not cover the cell {cell.name}: {_said(error)}", hint=_select_hint(error)
        ) from error
    packages = sorted(
        (
            _selected(package, source)
            for package, source in chosen
            if not isinstance(source, PackageDirectory) and source.url  # without a URL it is a local file
        ),
        key=lambda each: each.name,
    )
    locals_ = [
        f"{source.path}/{source.subdirectory or ''}" for _, source in chosen if isinstance(source, PackageDirectory)
    ]
    return Selection(
        cell=cell,
        lock_kind=lock.kind,
        lock_name=lock.path.name,
        uv_flags=lock.uv_flags,
        packages=tuple(packages),
        build_systems=_build_systems(lock, locals_),
        uv_settings=_index_settings(lock, packages),
    )


def _said(error: PylockSelectError) -> str:
    text = re.sub(r" at packages\[\d+\]", "", str(error))
    match = re.search(
        r"'(?P<python>3\.\d+)\.\d+' .*requirement '(?P<requirement>[^']*)'(?P<package> for package '[^']*')?",
        text,
    )
    if match:
        return f"Python {match['python']} is outside requires-python {match['requirement']!r}{match['package'] or ''}"
    return text[0].lower() + text[1:]


def _select_hint(error: PylockSelectError) -> str:
    text = str(error)
    if "No wheel found" in text:
        return "exclude the cell, give its base another libc, or lock a version that has a wheel or sdist for it"
    if "Python version" in text:
        return "take that Python out of the matrix, or widen requires-python and lock again"
    return "exclude the cell, or lock again for this environment"


def environment(cell: Cell) -> Environment:
    """The marker environment (PEP 508) of the cell's CPython."""
    minor = ".".join(cell.python.split(".")[:2])
    full = cell.python if cell.python != minor else f"{minor}.{NEWEST_PATCH}"
    return Environment(
        implementation_name="cpython",
        implementation_version=full,
        os_name="posix",
        platform_machine=cell.platform.machine,
        platform_release="",
        platform_system="Linux",
        platform_version="",
        python_full_version=full,
        platform_python_implementation="CPython",
        python_version=minor,
        sys_platform="linux",
    )


@lru_cache(maxsize=64)
def wheel_tags(cell: Cell) -> tuple[Tag, ...]:
    """The wheel tags of the cell's CPython and libc, best first (PEP 425, 600 and 656)."""
    major, minor = (int(part) for part in cell.python.split(".")[:2])
    platforms = list(_platforms(cell))
    interpreter = f"cp{major}{minor}"
    return (
        *cpython_tags((major, minor), abis=[interpreter], platforms=platforms),
        *compatible_tags((major, minor), interpreter, platforms),
    )


def _platforms(cell: Cell) -> Iterator[str]:
    machine = cell.platform.machine
    major, newest = (int(part) for part in cell.libc.split("."))
    if cell.family == "alpine":
        for minor in range(newest, -1, -1):
            yield f"musllinux_{major}_{minor}_{machine}"
    else:
        for minor in range(newest, _OLDEST_GLIBC[machine] - 1, -1):
            yield f"manylinux_{major}_{minor}_{machine}"
            if (machine, minor) in _LEGACY_MANYLINUX:
                yield _LEGACY_MANYLINUX[machine, minor]
    yield f"linux_{machine}"


def _selected(package: Package, source: _RemoteSource) -> SelectedPackage:
    table: dict[str, Any] = {"url": without_credentials(str(source.url))}
    size: int | None = None
    if isinstance(source, PackageVcs):
        table = {"type": source.type, **table, "commit-id": source.commit_id}
        artifact: Artifact = "vcs"
        filename = f"{package.name}@{source.commit_id}"
    else:
        size = source.size
        table |= ({"size": size} if size is not None else {}) | {"hashes": dict(sorted(source.hashes.items()))}
        artifact = _ARTIFACTS[type(source)]
        filename = table["url"].rsplit("/", 1)[-1] if isinstance(source, PackageArchive) else source.filename
        if not table["url"].endswith(f"/{filename}"):
            table["name"] = filename  # the URL does not say it
    if isinstance(source, PackageVcs | PackageArchive) and source.subdirectory:
        table["subdirectory"] = source.subdirectory
    return SelectedPackage(
        name=package.name,
        version=str(package.version) if package.version else None,
        artifact=artifact,
        filename=filename,
        size=size,
        index=without_credentials(package.index) if package.index else None,
        source=table,
    )


_ARTIFACTS: Final[Mapping[type, Artifact]] = {
    PackageWheel: "wheel", PackageSdist: "sdist", PackageArchive: "archive",
}  # fmt: skip


def _build_systems(lock: Lock, local_paths: Sequence[str]) -> tuple[BuildSystem, ...]:
    """The distinct build systems of the local packages, in a stable order."""
    source, settings = _uv_settings(lock)
    found: dict[tuple[tuple[str, ...], str], BuildSystem] = {}
    for path in local_paths:
        pyproject = lock.project / path / "pyproject.toml"
        declared = _entry(pyproject, _table(pyproject), "build-system", dict, _DEFAULT_BUILD_SYSTEM)
        backend = _entry(pyproject, declared, "build-backend", str, "setuptools.build_meta:__legacy__")
        system = BuildSystem(
            requires=tuple(map(_public, _entries(pyproject, declared, "requires", str))),
            backend="" if "backend-path" in declared else backend,
            constraints=tuple(map(_public, _entries(source, settings, "build-constraint-dependencies", str))),
        )
        if system.requires:
            found[system.requires, system.backend] = system
    return tuple(found[key] for key in sorted(found))


def _public(requirement: str) -> str:
    """The requirement, without the credentials that its URL may have."""
    return _URL.sub(lambda match: without_credentials(match[0]), requirement)


def _index_settings(lock: Lock, packages: Sequence[SelectedPackage]) -> Mapping[str, Any]:
    """Where builds get their requirements: as the project says, or else from the one index that the lock names."""
    source, settings = _uv_settings(lock)
    chosen = {name: settings[name] for name in _INDEX_SETTINGS if name in settings}
    if "index" in chosen:
        chosen["index"] = [
            # Where to publish is nothing to a build, and that address may have a password too.
            {name: value for name, value in index.items() if name != "publish-url"}
            | {"url": without_credentials(_entry(source, index, "url", str, ""))}
            for index in _entries(source, settings, "index", dict)
        ]
    if "index-url" in chosen:
        chosen["index-url"] = without_credentials(_entry(source, settings, "index-url", str, ""))
    if "extra-index-url" in chosen:
        chosen["extra-index-url"] = [
            without_credentials(url) for url in _entries(source, settings, "extra-index-url", str)
        ]
    named = {package.index for package in packages if package.index}
    if not chosen.keys() & {"index", "index-url"} and len(named) == 1:
        chosen["index"] = [{"url": named.pop(), "default": True}]
    return chosen


def _uv_settings(lock: Lock) -> tuple[Path, Mapping[str, Any]]:
    """The project's uv settings: `uv.toml` where there is one, else `[tool.uv]`, as uv itself looks for them."""
    own = lock.project / "uv.toml"
    if own.is_file():
        return own, _table(own)
    pyproject = lock.project / "pyproject.toml"
    tool: Mapping[str, Any] = _entry(pyproject, _table(pyproject), "tool", dict, {})
    return pyproject, _entry(pyproject, tool, "uv", dict, {})


def _table(path: Path) -> Mapping[str, Any]:
    """The content of a TOML file; empty where there is none."""
    return _toml(path, _text(path)) if path.is_file() else {}


def _entry(path: Path, table: Mapping[str, Any], key: str, kind: type[_Value], default: Any) -> _Value:
    """The value of a key in a table of the file, or the default; raise LockError where it is of another kind."""
    value = table.get(key, default)
    if not isinstance(value, kind):
        raise LockError(f"{path}: {key} must not be {value!r}")
    return value


def _entries(path: Path, table: Mapping[str, Any], key: str, kind: type[_Value]) -> tuple[_Value, ...]:
    return tuple(_entry(path, {key: each}, key, kind, None) for each in _entry(path, table, key, list, []))


def has_overrides(lock: Lock) -> bool:
    """Whether the project overrides what its dependencies ask for, so that `uv pip check` may rightly complain."""
    _, settings = _uv_settings(lock)
    return bool(settings.get("override-dependencies") or settings.get("dependency-metadata"))


def project_name(lock: Lock) -> str:
    """The name that pyproject.toml gives the project, or else its folder's."""
    pyproject = lock.project / "pyproject.toml"
    project: Mapping[str, Any] = _entry(pyproject, _table(pyproject), "project", dict, {})
    return _entry(pyproject, project, "name", str, "") or lock.project.resolve().name


def _requires_python(lock: Lock) -> SpecifierSet:
    """The `requires-python` of the pyproject.toml beside the lock, which a uv.lock has taken up already."""
    pyproject = lock.project / "pyproject.toml"
    project: Mapping[str, Any] = _entry(pyproject, _table(pyproject), "project", dict, {})
    text = _entry(pyproject, project, "requires-python", str, "")
    try:
        return SpecifierSet(text)
    except InvalidSpecifier as error:
        raise LockError(f"{pyproject}: requires-python {text!r} is no version specifier") from error


def newest_python(lock: Lock) -> str:
    """The Python of a project without a matrix: that of `.python-version`, else the newest that the lock admits."""
    pinned = lock.project / ".python-version"
    if pinned.is_file():
        lines = [line.strip() for line in _text(pinned).splitlines()]
        wanted = next((line for line in lines if line and not line.startswith("#")), "")
        match = re.fullmatch(r"(?:cpython[-@])?(?P<version>3\.[0-9]{1,2}(?:\.[0-9]{1,3})?)", wanted)
        if match:
            return match["version"]
    required = lock.pylock.requires_python or SpecifierSet()
    if lock.kind != "uv.lock":
        required &= _requires_python(lock)
    for minor in range(NEWEST_PYTHON, OLDEST_PYTHON - 1, -1):
        if required.contains(f"3.{minor}.{NEWEST_PATCH}"):
            return f"3.{minor}"
    raise LockError(
        f"{lock.path} needs Python {required}, and builder knows 3.{OLDEST_PYTHON} to 3.{NEWEST_PYTHON}",
        hint="write a matrix.toml that names the Python version",
    )
