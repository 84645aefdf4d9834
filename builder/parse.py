"""JSON and TOML from outside the program: parsed where it comes in, into a typed value or one clear error."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

import tomli
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from builder.errors import BuilderError


class Document(BaseModel):
    """A JSON object that another program wrote: declared fields must have their types, other fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, populate_by_name=True)


_Document = TypeVar("_Document", bound=BaseModel)
_Value = TypeVar("_Value")


class MalformedError(ValueError):
    """The text is not JSON (or TOML), or a field has the wrong type; `str()` names the field and the fault."""


def parse_document(kind: type[_Document], text: bytes | str) -> _Document:
    """Parse a JSON object; raise MalformedError, which names the first wrong field."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise MalformedError(_first_fault(error)) from None


def parse_toml(kind: type[_Document], text: str) -> _Document:
    """Parse a TOML document; raise MalformedError, which names the first wrong field."""
    try:
        return kind.model_validate(tomli.loads(text))
    except (tomli.TOMLDecodeError, RecursionError) as error:
        raise MalformedError(f"invalid TOML: {error}") from error
    except ValidationError as error:
        raise MalformedError(_first_fault(error)) from None


def fields_or_raise(kind: type[_Document], table: Any, fault: BuilderError) -> _Document:
    """Take typed fields from a value that a library has parsed; raise the given error, extended by the fault."""
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        raise _extended(fault, _first_fault(error)) from None


def parse_value(kind: type[_Value], text: bytes | str) -> _Value:
    """Parse a JSON value of any type, such as `list[str]`; raise MalformedError."""
    try:
        adapter = _adapter(kind)  # type: ignore[arg-type]  # a type is hashable
        value: _Value = adapter.validate_json(text, strict=True)
    except ValidationError as error:
        raise MalformedError(_first_fault(error)) from None
    return value


@lru_cache(maxsize=64)  # making one takes longer than most values take to parse
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def parse_or_raise(kind: type[_Document], text: bytes | str, fault: BuilderError) -> _Document:
    """Parse a JSON object; raise the given error, extended by the first fault."""
    try:
        return parse_document(kind, text)
    except MalformedError as error:
        raise _extended(fault, str(error)) from error


def _extended(fault: BuilderError, detail: str) -> BuilderError:
    return type(fault)(f"{fault.what}: {detail}", hint=fault.hint)


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, fault["loc"]))
    text = fault["msg"].removeprefix("Value error, ")
    message = text if text.startswith("JSON") else text[:1].lower() + text[1:]
    return f"{where}: {message}" if where else message
