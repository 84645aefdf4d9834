"""Files, JSON and TOML from outside the program: read and parsed where they come in, or one clear error."""

from __future__ import annotations

import codecs
import errno
import io
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import tomli
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, TypeAdapter, ValidationError

from builder.errors import BuilderError

FILE_BYTES: Final = 64 << 20  # the largest file that builder reads at once; large locks have 4 MB


class Document(BaseModel):
    """A JSON object that another program wrote: declared fields must have their types, other fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, populate_by_name=True)


def one_line(text: str) -> str:
    """The text with a space for any white space, so that it cannot pretend to be several lines where it is shown."""
    return " ".join(text.split())


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(timezone.utc)
    except OverflowError:
        raise ValueError("a time that UTC does not have") from None


OneLine = Annotated[str, AfterValidator(one_line)]
UtcTime = Annotated[AwareDatetime, AfterValidator(_in_utc)]
_Document = TypeVar("_Document", bound=BaseModel)
_Value = TypeVar("_Value")


class MalformedError(ValueError):
    """The text is not JSON (or TOML), or a field has the wrong type; `str()` names the field and the fault."""


def read_bytes(path: Path) -> bytes:
    """Read a file, or what is no file but can be read; raise OSError if it cannot, or has more than 64 MiB."""
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "there is a NUL in its name", str(path))
    with path.open("rb") as file:
        content = file.read(FILE_BYTES + 1)
    if len(content) > FILE_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {FILE_BYTES >> 20} MiB", str(path))
    return content


def read_text(path: Path) -> str:
    """Read a file of UTF-8 text with any line ends; raise OSError as `read_bytes` does, or UnicodeDecodeError.

    It may begin with a byte order mark, and be UTF-16 if that says so: PowerShell's `>` writes such files.
    """
    content = read_bytes(path)
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    return io.StringIO(content.decode(encoding), newline=None).read()


def conflict_line(text: str) -> int:
    """The number of the first line that git left of a merge conflict; 0 if there is none."""
    lines = enumerate(text.splitlines(), 1)
    return next((number for number, line in lines if line.startswith(("<<<<<<< ", ">>>>>>> "))), 0)


def parse_document(kind: type[_Document], text: bytes | str) -> _Document:
    """Parse a JSON object; raise MalformedError, which names the first wrong field."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise MalformedError(_first_fault(error)) from None


def parse_toml(kind: type[_Document], text: str) -> _Document:
    """Parse a TOML document; raise MalformedError, which names the first wrong field."""
    try:
        return kind.model_validate(load_toml(text))
    except ValidationError as error:
        raise MalformedError(_first_fault(error)) from None


def load_toml(text: str) -> dict[str, Any]:
    """Parse TOML into a table; raise MalformedError."""
    try:
        return tomli.loads(text)
    except (ValueError, RecursionError) as error:  # a ValueError of `int` too, for thousands of digits
        raise MalformedError(str(error)) from None


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
