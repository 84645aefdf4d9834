"""Lines of a job's script: what a command does to the environment that a baked image brings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from builder.gitlab.adopt.job import expand

Kind = Literal[
    "creates", "activates", "deactivates", "runs", "uses", "tool", "uv", "uv-path", "prunes", "python", "sets"
]
VENV_DEEDS: Final = frozenset({"creates", "activates", "runs", "uses"})  # those that have to do with one environment

# Variables that take the place of those of the image.
OVERRIDES: Final = frozenset(
    {"UV_CACHE_DIR", "UV_LINK_MODE", "UV_COMPILE_BYTECODE", "PIP_CACHE_DIR", "UV_PROJECT_ENVIRONMENT", "VIRTUAL_ENV"}
)
INSTALLS: Final = re.compile(r"\b(?:pip3?|uv|uvx|virtualenv|poetry|pipenv|pdm|tox|nox)\b|-m venv\b")
ONLY_INSTALLS: Final = re.compile(
    r"(?:python[\d.]* -m )?pip3? install .*(?:-r|--requirement|--upgrade pip|-U pip)\b.*"
    r"|uv sync\b[^&;|]*(?:\|\| uv sync\b[^&;|]*)?|uv pip (?:sync|install -r)\b[^&;|]*"
    r"|(?:python[\d.]*|pip3?|uv) (?:--version|-V)|pip3? (?:freeze|list)"
)
_COMPOUND: Final = re.compile(r"&&|\|\||;|\||\n|&(?=\s|$)")
_UV_INSTALLER: Final = re.compile(
    r"(?:curl|wget)\b[^|;&]*astral\.sh/uv/[^|;&]*install\.sh[^|;&]*\|\s*(?:env \S+ )*(?:ba)?sh(?:\s-\S*)*"
)
_UV_PATHS: Final = re.compile(r"(?:source|\.) [\"']?(?:\$HOME|\$\{HOME\}|~)/\.(?:local/bin|cargo)/env[\"']?")
_PROJECT: Final = re.compile(r"^(?:\$\{?CI_PROJECT_DIR\}?/|\./)+")
_RUNS: Final = re.compile(r"(?P<venv>[^\s;|&'\"=]*?[^\s;|&'\"=/]+)/bin/(?=\w)")
_PYTHON: Final = re.compile(r"python[\d.]*|py|\$\{?PYTHON\w*\}?")
_TAKES_VALUE: Final = frozenset({"-p", "--python", "--prompt", "--seeder", "--index-url", "-i", "-c"})


@dataclass(frozen=True, kw_only=True)
class Deed:
    """What a command does; `venv` is the environment's directory from the project's, `prefix` how the line names it.

    `variable` is the one that it sets, or that says where the environment is.
    """

    kind: Kind
    venv: str = ""
    prefix: str = ""
    variable: str = ""


def in_project(path: str, environment: Mapping[str, str]) -> str:
    """A path without the project's directory before it, expanded; absolute where it lies elsewhere."""
    short = _PROJECT.sub("", expand(path, environment).strip("\"'"))
    return re.sub(r"/(?:\*\*?/?)*$", "", short) or short


def is_inside(path: str) -> bool:
    """Whether what `in_project` returned lies in the project."""
    return not path.startswith(("/", "~", "$"))


def deed(text: str, environment: Mapping[str, str]) -> Deed | None:
    """What a command does, None where it is of no concern, or of more than one command."""
    text = text.strip()
    if _UV_INSTALLER.fullmatch(text):
        return Deed(kind="uv")
    if _UV_PATHS.fullmatch(text):
        return Deed(kind="uv-path")
    if is_compound(text):
        return None
    try:
        words = shlex.split(text)
    except ValueError:
        return None
    return _of_venv(words, environment) or _of_tools(words) or _of_path(text, environment)


def deeds_inside(text: str, environment: Mapping[str, str]) -> list[tuple[int, str, Deed]]:
    """What the commands of a compound or longer text do: line from 0, the command, its deed."""
    found = []
    for number, line in enumerate(text.split("\n")):
        parts = [line] if _UV_INSTALLER.fullmatch(line.strip()) else _COMPOUND.split(line)
        for part in parts:
            each = deed(part, environment)
            found += [(number, part.strip(), each)] if each else []
    return found


def is_compound(text: str) -> bool:
    """Whether a text is more than one simple command."""
    return _COMPOUND.search(text.strip()) is not None or "$(" in text or "`" in text


def _of_venv(words: list[str], environment: Mapping[str, str]) -> Deed | None:
    match words:
        case [python, "-m", "venv" | "virtualenv", *rest] if _PYTHON.fullmatch(python):
            directory = _last_argument(rest)
        case ["virtualenv", *rest]:
            directory = _last_argument(rest)
        case ["uv", "venv", *rest] if not _last_argument(rest):
            return Deed(kind="creates", venv=".venv", variable="UV_PROJECT_ENVIRONMENT")
        case ["uv", "venv", *rest]:
            directory = _last_argument(rest)
        case ["source" | ".", path] if path.endswith("/bin/activate"):
            return Deed(kind="activates", venv=in_project(path.removesuffix("/bin/activate"), environment))
        case ["deactivate"]:
            return Deed(kind="deactivates")
        case _:
            return None
    return Deed(kind="creates", venv=in_project(directory, environment)) if directory else None


def _last_argument(words: list[str]) -> str:
    values = [word for before, word in zip(["", *words], words, strict=False) if before not in _TAKES_VALUE]
    arguments = [word for word in values if not word.startswith("-")]
    return arguments[0] if len(arguments) == 1 else ""


def _of_tools(words: list[str]) -> Deed | None:
    match words:
        case [python, "-m", *rest] if _PYTHON.fullmatch(python):
            return _of_tools(rest)
        case ["pip" | "pip3" | "pipx", "install", *rest]:
            names = {re.split(r"[=<>~!\[]", word)[0] for word in rest if not word.startswith("-")}
            return Deed(kind="tool") if names == {"virtualenv"} else Deed(kind="uv") if names == {"uv"} else None
        case ["uv", "cache", "clean"] | ["uv", "cache", "prune", "--ci"]:
            return Deed(kind="prunes")
        case ["uv", "python", "install", *_]:
            return Deed(kind="python")
        case ["export", assignment] if (name := assignment.partition("=")[0]) in OVERRIDES and "=" in assignment:
            return Deed(kind="sets", variable=name)
    return None


def _of_path(text: str, environment: Mapping[str, str]) -> Deed | None:
    """A program started by its path in an environment of the project, or such a path elsewhere in the command."""
    paths = [each for each in _RUNS.finditer(text) if _looks_like_venv(in_project(each["venv"], environment))]
    if not paths:
        return None
    venv = in_project(paths[0]["venv"], environment)
    if len(paths) == 1 and paths[0].start() == 0:
        return Deed(kind="runs", venv=venv, prefix=paths[0][0])
    return Deed(kind="uses", venv=venv)


def _looks_like_venv(path: str) -> bool:
    return is_inside(path) and re.fullmatch(r"(?:.*/)?\.?\w*v?env\w*", path) is not None
