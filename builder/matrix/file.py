"""`matrix.toml` → `Matrix`: read the file, check it, and turn it into cells."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from builder.errors import MatrixError
from builder.index_mirror import IndexMirrors
from builder.matrix.faults import LIST_OF_BASES, axis_faults, cell_faults, matrix_error, schema_fault
from builder.matrix.model import Cell, Matrix, Platform
from builder.matrix.schema import MatrixFile
from builder.oci.reference import ImageRef, Mirrors
from builder.parse import MalformedError, conflict_line, load_toml, read_bytes, read_text

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")

PROJECT_FILE: Final = "pyproject.toml"  # may contain the matrix, as its table [tool.builder]
TABLE: Final = "[tool.builder]"
BUILT_IN_NAME: Final = "the built-in matrix"
BUILT_IN = """\
python = ["{python}"]
base = ["bookworm-slim"]

[bases.bookworm-slim]
image = "docker.io/library/python:{{python}}-slim-bookworm"
family = "debian"
"""


def built_in_matrix(python: str, *, uv: str | None = None) -> Matrix:
    """The matrix of a project without a matrix.toml: one cell, the given Python on bookworm-slim, the given uv."""
    text = BUILT_IN.format(python=python)
    return parse_matrix(f'uv = "{uv}"\n{text}' if uv else text, source=BUILT_IN_NAME)


def read_matrix(path: Path) -> Matrix:
    """Read and parse a matrix file, or the table `[tool.builder]` of a pyproject.toml.

    Raises a MatrixError that lists all its faults.
    """
    try:
        text = read_text(path)
    except UnicodeDecodeError as error:
        raise MatrixError(f"{path} is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise MatrixError(
            f"cannot read {path}: {error.strerror}",
            hint="name the matrix with -f; without -f and matrix.toml, builder uses its built-in matrix",
        ) from error
    if path.name != PROJECT_FILE:
        return parse_matrix(text, source=str(path), folder=path.parent)
    table = _embedded(_load(text, str(path)))
    if table is None:
        raise MatrixError(f"{path} has no table {TABLE}", hint="write the matrix there, or name another file with -f")
    return _parse_table(table, f"{path} {TABLE}", path.parent)


def has_matrix(path: Path) -> bool:
    """Whether a pyproject.toml has a table `[tool.builder]`; False if it cannot be read, which others report."""
    try:
        text = read_text(path)
        return "builder" in text and _embedded(load_toml(text)) is not None
    except (OSError, ValueError):
        return False


def _embedded(table: Mapping[str, Any]) -> Mapping[str, Any] | None:
    tool = table.get("tool")
    found = tool.get("builder") if isinstance(tool, dict) else None
    return found if isinstance(found, dict) else None


def parse_matrix(text: str, *, source: str, folder: Path = Path()) -> Matrix:
    """Parse the text of a matrix file; raise a MatrixError that lists all its faults.

    Other files that it names are relative to the folder.
    """
    return _parse_table(_load(text, source), source, folder)


def _load(text: str, source: str) -> Mapping[str, Any]:
    try:
        return load_toml(text)
    except MalformedError as error:
        twice = re.search(r"^bases\s*=", text, re.MULTILINE) and re.search(r"^\[bases\.", text, re.MULTILINE)
        if twice:
            raise MatrixError(f"{source}: bases is both a list and a table", hint=LIST_OF_BASES) from error
        if match := re.search(r"^\[base\.(?P<name>[^\]]+)\]", text, re.MULTILINE):
            what = f"{source}: base is the list of names, and cannot be a table too"
            raise MatrixError(what, hint=f"write [bases.{match['name']}] instead of {match[0]}") from error
        if number := conflict_line(text):
            raise MatrixError(f"{source}:{number}: an unresolved merge conflict", hint="choose one side") from error
        raise MatrixError(f"{source} is not TOML: {error}") from error


def _parse_table(table: Mapping[str, Any], source: str, folder: Path) -> Matrix:
    try:
        # In strict mode, a tuple field accepts a JSON array but not a Python list.
        file = MatrixFile.model_validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        faults = [schema_fault(details) for details in error.errors()]
        raise matrix_error(source, [*faults, *axis_faults(table)]) from error
    faults = [*axis_faults(table), *cell_faults(file)]
    if faults:
        raise matrix_error(source, faults)
    return _matrix(file, source, _certificates(source, folder / file.ca) if file.ca else b"")


def _certificates(source: str, path: Path) -> bytes:
    """The certificates in a PEM file, which will be in images for all to read."""
    try:
        content = read_bytes(path)
    except OSError as error:
        raise matrix_error(source, [f"ca: cannot read {path}: {error.strerror}"]) from error
    if b"PRIVATE KEY" in content:
        raise matrix_error(source, [f"ca: {path} has a private key; images get certificates only"])
    found = _CERTIFICATE.findall(content)
    if not found:
        raise matrix_error(source, [f"ca: {path} has no certificate in PEM"])
    return b"".join(each.replace(b"\r\n", b"\n") + b"\n" for each in found)


def _matrix(file: MatrixFile, source: str, ca: bytes) -> Matrix:
    named = file.platforms or ((file.platform,) if file.platform else ())
    platforms = tuple(map(Platform.from_str, named)) or (Platform.of_this_machine(),)
    cells = []
    for place in file.places:
        base = file.bases[place.base]
        libc, family = base.known_libc, base.known_family
        if file.excludes(place) or libc is None or family is None:
            continue
        image = ImageRef.from_str(base.image.replace("{python}", place.python))
        cells += [
            Cell(
                python=place.python, base=place.base, profile=place.profile, image=image, family=family, libc=libc,
                packages=base.packages, platform=platform, user=base.user or "", python_source=base.python_source,
                build_packages=base.build_packages, platforms=platforms if len(platforms) > 1 else (),
            )
            for platform in platforms
        ]  # fmt: skip
    return Matrix(
        source=source,
        repository=file.repository,
        cells=tuple(cells),
        uv=ImageRef.from_str(file.uv_image).with_tag(file.uv),
        install=file.install,
        profiles=file.profiles,
        link_mode=file.link_mode,
        refresh=file.refresh,
        compression=file.compression,
        cache=file.cache,
        layers=file.layers,
        max_layers=file.max_layers,
        insecure=file.insecure,
        aliases=tuple(sorted(file.aliases.items())),
        mirrors=Mirrors.from_mapping(file.mirrors),
        ca=ca,
        tools=file.tools,
        ssh=file.ssh,
        index_mirrors=IndexMirrors.from_mapping(file.index_mirrors),
        credentials=tuple((host, each.username, each.password) for host, each in sorted(file.credentials.items())),
    )
