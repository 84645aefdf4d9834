"""All errors in a `matrix.toml` at once: for each its key, what is wrong, and what to write instead."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel
from pydantic_core import ErrorDetails

from builder.contract import KEY_LENGTH
from builder.errors import MatrixError, listed, near
from builder.matrix.facts import near_release
from builder.matrix.interpreter import Interpreter
from builder.matrix.schema import DEFAULT_PROFILE, Base, Install, MatrixFile

LIST_OF_BASES: Final = "the list of names goes in `base`; a table [bases.NAME] defines each of them"
LONGEST_BASE: Final = 106  # characters, so that <python>-<base>-<key> fits into a tag
_HOMES: Final[Mapping[str, type[BaseModel]]] = {"[install]": Install, "[bases.NAME]": Base}
_PLATFORMS: Final = {"amd64": "amd64", "x86_64": "amd64", "arm64": "arm64", "aarch64": "arm64"}
_ARCHITECTURE: Final = 6  # characters that `platforms` adds to the tags of single images


def matrix_error(source: str, faults: Sequence[str]) -> MatrixError:
    """One exception for all faults of the file, without duplicates."""
    unique = list(dict.fromkeys(faults))
    head = f"{source} has {len(unique)} errors:" if len(unique) > 1 else f"{source}:"
    return MatrixError("\n  ".join([head, *(fault.replace("\n", "\n    ") for fault in unique)]))


def schema_fault(details: ErrorDetails) -> str:
    """Describe one of pydantic's errors in terms of TOML."""
    path = [str(part) for part in details["loc"] if not str(part).startswith(("tuple[", "literal["))]
    where = ".".join(path)
    if details["type"] == "extra_forbidden":
        return f"{where}: {_unknown(path)}"
    if details["type"] == "missing":
        return f"{where}: missing; this key is required"
    if details["type"] == "value_error":
        return f"{where}: {details['ctx']['error']}"
    if advice := _shaped(path, details):
        return f"{where}: {advice}"
    message = details["msg"].replace("an object", "a table")  # pydantic uses the JSON term
    return f"{where}: {message[0].lower()}{message[1:]}, not {details['input']!r}"


def _unknown(path: Sequence[str]) -> str:
    """An unknown key: the table in which it is known, or else the keys that are known where it is."""
    key, known = path[-1], _known_keys(path[:-1])
    homes = [home for home, model in _HOMES.items() if len(path) == 1 and key in _keys_of(model)]
    if homes:
        return f"unknown key here; it belongs in {' or '.join(homes)}"
    return f"unknown key{near(key, known)}; known keys: {', '.join(sorted(known))}"


def _shaped(path: Sequence[str], details: ErrorDetails) -> str:
    """What to write instead of a value of another type or shape; '' if that is not known."""
    value, key, kind = details["input"], path[-1] if path else "", details["type"]
    is_list = kind in {"tuple_type", "list_type"}
    advice = ""
    if list(path[:1]) == ["credentials"]:  # whose value may be a password: it is not repeated
        advice = 'write { username = "NAME", password = "VARIABLE" }, with the name of a variable that has the password'
    elif list(path) == ["bases"] and isinstance(value, list):
        advice = LIST_OF_BASES
    elif kind == "string_type" and isinstance(value, (int, float)):
        advice = f"write {_quoted('.'.join(path), value)}, in quotes; {value!r} is a number"
    elif kind == "string_type" and isinstance(value, dict) and len(path) > 1:
        advice = f'a name with dots goes in quotes: "{".".join([key, *list(value)[:1]])}" = …'
    elif {*path[:1]} & {"install", "profiles"} and isinstance(value, str) and (is_list or kind == "literal_error"):
        advice = f'write a list: {key} = ["{value}"]; or "all"'
    elif is_list and isinstance(value, str):
        advice = f"write a list: {key} = [{', '.join(json.dumps(word) for word in value.split())}]"
    elif is_list and isinstance(value, dict):
        advice = f"write a list: {key} = [{{ … }}]"
    elif {*path[:1]} & {"platform", "platforms"}:
        meant = _PLATFORMS.get(str(value).removeprefix("linux/"))
        advice = f'write "linux/{meant}"' if meant else ""
    return advice


def _quoted(where: str, number: float) -> str:
    """A number as the text that was meant: TOML reads 3.10 as 3.1, and there is no Python 3.1 to want."""
    return '"3.10"' if where.startswith("python") and str(number) == "3.1" else f'"{number}"'


def _known_keys(path: Sequence[str]) -> set[str]:
    """The known keys of the table at this path; the path may pass through models, tables and arrays."""
    model: Any = MatrixFile
    for part in path:
        if isinstance(model, type) and issubclass(model, BaseModel):
            fields = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
            model = fields.get(part)
        elif get_origin(model) in {dict, tuple}:
            model = get_args(model)[1 if get_origin(model) is dict else 0]
        if get_origin(model) in {Union, UnionType}:
            model = get_args(model)[0]
    return _keys_of(model) if isinstance(model, type) and issubclass(model, BaseModel) else set()


def _keys_of(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def axis_faults(table: Mapping[str, Any]) -> Iterator[str]:
    """The faults of the two axes; checked even if other keys of the file are invalid."""
    for axis in ("python", "base"):
        values = table.get(axis)
        if not isinstance(values, list):
            continue
        if not values:
            yield f"{axis}: empty; list at least one"
        for value in dict.fromkeys(map(str, values)):
            if values.count(value) > 1:
                yield f"{axis}: {value!r} is listed {values.count(value)} times; list it once"
    defined = table.get("bases", {})
    if isinstance(table.get("base"), list) and isinstance(defined, dict):
        for name in dict.fromkeys(map(str, table["base"])):
            if name not in defined:
                yield (
                    f"base: {name!r} is not defined{near(name, defined)}; add a table such as\n"
                    f'[bases.{name}]\nimage = "docker.io/library/python:{{python}}-slim-bookworm"\nfamily = "debian"'
                )


def cell_faults(file: MatrixFile) -> Iterator[str]:
    """The contradictions between keys of a file in which each key is valid on its own."""
    for name, base in file.bases.items():
        yield from _base_faults(name, base, file)
    yield from _install_faults("install", file.install)
    for name, profile in file.profiles.items():
        yield from _install_faults(f"profiles.{name}", profile)
        yield from _profile_name_faults(name, file)
    yield from _platform_faults(file)
    tools = [canonicalize_name(Requirement(text).name) for text in file.tools]
    for name in dict.fromkeys(name for name in tools if tools.count(name) > 1):
        yield f"tools: {name!r} is listed {tools.count(name)} times; list it once"
    for index, exclusion in enumerate(file.exclude):
        if exclusion.is_empty:
            yield f"exclude.{index}: empty; set python, base or profile"
        elif not any(exclusion.matches(place) for place in file.places):
            yield f"exclude.{index}: matches no cell; fix it or remove it"
    yield from _python_faults(file)
    kept = [place.name for place in file.places if not file.excludes(place)]
    unique = [place.name for place in dict.fromkeys(file.places) if not file.excludes(place)]
    for name in dict.fromkeys(name for name in unique if unique.count(name) > 1):
        yield f"profiles: two cells would be named {name}; rename the profile or the base"
    if file.places and not kept:
        yield "exclude: every cell is excluded; keep at least one"
    for alias, cell in file.aliases.items():
        if kept and cell not in kept:
            yield f"aliases.{alias}: {cell!r} is not a cell{near(cell, kept)}; cells: {listed(kept)}"
        elif alias in kept:
            yield f"aliases.{alias}: is already the name of a cell; choose another name"


def _base_faults(name: str, base: Base, file: MatrixFile) -> Iterator[str]:
    if not base.known_family:
        families = '"debian", "alpine", "rhel" or "wolfi"'
        yield f"bases.{name}.family: missing, and the name {base.image!r} does not tell it; write {families}"
    elif not base.known_libc and (meant := near_release(base.image)):
        yield f"bases.{name}.image: {base.image!r} is no tag of a known release; did you mean {meant!r}?"
    elif not base.known_libc:
        yield f'bases.{name}.libc: missing, and not known for {base.image!r}; set it, for example libc = "2.36"'
    pythons = list(
        dict.fromkeys(place.python for place in file.places if place.base == name and not file.excludes(place))
    )
    if "{python}" not in base.image and len(pythons) > 1:
        yield f"bases.{name}.image: the same for Python {listed(pythons)}; write {{python}} where the version goes"
    longest = _longest_base(file)
    if len(name) > longest:
        yield f"bases.{name}: too long for a tag with Python version and key; use at most {longest} characters"


def _python_faults(file: MatrixFile) -> Iterator[str]:
    """The Pythons that no base has, on bases whose own Python is to be used."""
    for place in file.places:
        base = file.bases.get(place.base)
        is_usual = Interpreter.from_str(place.python).is_usual
        if base and base.python_source == "base" and not is_usual and not file.excludes(place):
            yield (
                f"bases.{place.base}.python-source: {place.python} can only come from uv; "
                f'write python-source = "uv", or exclude {{ python = "{place.python}", base = "{place.base}" }}'
            )


def _longest_base(file: MatrixFile) -> int:
    return LONGEST_BASE - (_ARCHITECTURE if file.platforms else 0)


def _install_faults(where: str, install: Install) -> Iterator[str]:
    if install.only_groups and (install.groups or install.extras):
        yield f"{where}.only-groups: leaves out everything else; remove {where}.groups and {where}.extras"


def _profile_name_faults(name: str, file: MatrixFile) -> Iterator[str]:
    if name == DEFAULT_PROFILE:
        yield f"profiles.{name}: is what [install] chooses; write it there, or use another name"
    if re.fullmatch(f"[0-9a-f]{{{KEY_LENGTH}}}", name):
        yield f"profiles.{name}: its tags could be mistaken for immutable ones; use another name"
    if any(platform.endswith(f"/{name}") for platform in file.platforms):
        yield f"profiles.{name}: is an architecture of platforms, whose images have such names; use another name"
    most = _longest_base(file) - max(map(len, file.base), default=0) - 1
    if len(name) > most:
        yield f"profiles.{name}: too long for a tag with base and key; use at most {most} characters"


def _platform_faults(file: MatrixFile) -> Iterator[str]:
    if file.platform and file.platforms:
        yield "platform: is the only one, and platforms lists several; remove one of the two keys"
    for platform in dict.fromkeys(file.platforms):
        if file.platforms.count(platform) > 1:
            yield f"platforms: {platform!r} is listed {file.platforms.count(platform)} times; list it once"
        suffix = f"-{platform.partition('/')[2]}"
        for name in file.base if len(file.platforms) > 1 else ():
            if f"{name}{suffix}" in file.base:
                yield f"base: {name!r} for {platform} and the base {name + suffix!r} have the same name; rename one"
