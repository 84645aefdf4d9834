"""The values in `matrix.toml` that are texts of a form: what each may be, and what to write instead."""

from __future__ import annotations

import re
from typing import Annotated, Any

from packaging.requirements import InvalidRequirement, Requirement
from pydantic import AfterValidator, Field

from builder.errors import UsageError
from builder.index_mirror import IndexMirrors
from builder.matrix.interpreter import PYTHON_PATTERN
from builder.oci.reference import TAG_PATTERN, ImageRef, Mirrors

_UV = r"[0-9]+\.[0-9]+\.[0-9]+"
_LIBC = r"[0-9]+\.[0-9]+"
_HOST = r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
_USER = r"[a-z_][a-z0-9_-]{0,31}|0|[1-9][0-9]{0,8}"
_PACKAGE = r"[A-Za-z0-9][A-Za-z0-9+._:@~<>=-]*"


def _matching(pattern: str, description: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"{text!r} is not {description}")
        return text

    return AfterValidator(check)


def _variable(text: str) -> str:
    if not re.fullmatch(_VARIABLE, text):  # which may be a password: it is not repeated
        raise ValueError("this is no name of an environment variable; write the name of the one that has the value")
    return text


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
        raise ValueError(f"{text!r} has a tag or digest; write only the repository")
    return text


def _mirrors(table: dict[str, str]) -> dict[str, str]:
    try:
        Mirrors.from_mapping(table)
    except UsageError as error:
        raise ValueError(str(error)) from error
    return table


def _index_mirrors(table: dict[str, str]) -> dict[str, str]:
    try:
        IndexMirrors.from_mapping(table)
    except UsageError as error:
        raise ValueError(str(error)) from error
    return table


def _tool(text: str) -> str:
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        raise ValueError(f'{text!r} is no tool; write a package, such as "ruff" or "pre-commit==4.*"') from None
    if requirement.url or requirement.marker:
        raise ValueError(f"{text!r} has a URL or a marker; write the package and its version alone")
    return str(requirement)


def _pattern(pattern: str) -> dict[str, Any]:
    return {"pattern": f"^{pattern}$"}


PythonVersion = Annotated[
    str,
    _matching(PYTHON_PATTERN, 'a Python version; write "3.13", or "3.13.2" to pin the patch; "3.13t", "pypy3.11"'),
    Field(json_schema_extra=_pattern(PYTHON_PATTERN)),
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
        "a tag; use at most 128 letters, digits, '_', '.' and '-', not starting with '.' or '-'",
    ),
    Field(json_schema_extra=_pattern(TAG_PATTERN)),
]
PackageName = Annotated[
    str,
    _matching(_PACKAGE, 'a system package; write only its name, such as "git" or "git=1:2.39.5-0"'),
    Field(json_schema_extra=_pattern(_PACKAGE)),
]
Host = Annotated[
    str,
    _matching(_HOST, 'a host; write only its name, such as "gitlab.example.com"'),
    Field(json_schema_extra=_pattern(_HOST)),
]
VariableName = Annotated[str, AfterValidator(_variable), Field(json_schema_extra=_pattern(_VARIABLE))]
UserName = Annotated[
    str,
    _matching(_USER, 'a user; write a name, such as "ci", or a uid, such as "1000"'),
    Field(json_schema_extra=_pattern(f"({_USER})")),
]
ImageText = Annotated[str, AfterValidator(_reference)]
RepositoryText = Annotated[str, AfterValidator(_repository)]
MirrorTable = Annotated[dict[str, str], AfterValidator(_mirrors)]
IndexMirrorTable = Annotated[dict[str, str], AfterValidator(_index_mirrors)]
ToolText = Annotated[str, AfterValidator(_tool)]
