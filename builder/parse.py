"""JSON from outside the program: parsed once, where it comes in, into a typed value or one clear error."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from builder.errors import BuilderError


class Document(BaseModel):
    """A JSON object that something else wrote: known fields have the declared types, unknown ones are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, populate_by_name=True)


_Document = TypeVar("_Document", bound=BaseModel)
_Value = TypeVar("_Value")


class MalformedError(ValueError):
    """The text is not JSON, or has other types than expected; `str()` says where and what."""


def document(kind: type[_Document], text: bytes | str) -> _Document:
    """Parse a JSON object; raise MalformedError that names the first field that is wrong."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise MalformedError(_first_fault(error)) from None


def value(kind: type[_Value], text: bytes | str) -> _Value:
    """Parse any JSON value of this type, such as `list[str]`; raise MalformedError."""
    try:
        return TypeAdapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        raise MalformedError(_first_fault(error)) from None


def expect(kind: type[_Document], text: bytes | str, fault: BuilderError) -> _Document:
    """Parse a JSON object; raise the given error, with what is wrong added to it."""
    try:
        return document(kind, text)
    except MalformedError as error:
        raise type(fault)(f"{fault.what}: {error}", hint=fault.hint) from error


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, fault["loc"]))
    message = fault["msg"][0].lower() + fault["msg"][1:]
    return f"{where}: {message}" if where else message
