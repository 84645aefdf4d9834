"""Commands in a job's script, and their effect on the environment of a baked image."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from builder.gitlab.adopt.job import expand

EffectKind = Literal[
    "create-venv", "activate", "deactivate",
    "run-program",  # a program in an environment, by its path
    "use-path",  # any other use of such a path
    "install-virtualenv", "install-uv", "add-uv-to-path", "install-python", "prune-cache", "set-variable",
]  # fmt: skip
VENV_EFFECTS: Final = frozenset({"create-venv", "activate", "run-program", "use-path"})  # on one named environment

# Variables that would override those of the image.
OVERRIDES: Final = frozenset(
    {"UV_CACHE_DIR", "UV_LINK_MODE", "UV_COMPILE_BYTECODE", "PIP_CACHE_DIR", "UV_PROJECT_ENVIRONMENT", "VIRTUAL_ENV"}
)
INSTALLS: Final = re.compile(
    r"\b(?:pip3?|uv|uvx|virtualenv|poetry|pipenv|pdm|tox|nox|hatch|rye|conda|mamba|micromamba)\b|-m venv\b"
)
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
_PATH: Final = re.compile(r"[^\s;|&'\"=]+")
_VENV_PROGRAM: Final = re.compile(r"(?P<venv>.*?[^/])/bin/(?=\w)")
_PYTHON: Final = re.compile(r"python[\d.]*|py|\$\{?PYTHON\w*\}?")
_TAKES_VALUE: Final = frozenset({"-p", "--python", "--prompt", "--seeder", "--index-url", "-i", "-c"})


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a command does.

    `venv` is the environment's path relative to the project, `prefix` the same path as the line spells it, up to the
    program. `variable` is the one that the command sets, or that decides where the environment is.
    """

    kind: EffectKind
    venv: str = ""
    prefix: str = ""
    variable: str = ""


def in_project(path: str, variables: Mapping[str, str]) -> str:
    """A path, expanded and relative to the project's directory; absolute if it is outside of the project."""
    short = _PROJECT.sub("", expand(path, variables).strip("\"'"))
    stem = short.rstrip("*/")
    slash = short.find("/", len(stem))  # of `.cache/**/`, for example
    return short[:slash] or short if slash >= 0 else short


def is_inside(path: str) -> bool:
    """Whether a path that `in_project` returned is inside the project."""
    return not path.startswith(("/", "~", "$"))


def effect_of(text: str, variables: Mapping[str, str]) -> Effect | None:
    """The effect of a command; None if it does not matter, or if the text contains several commands."""
    text = text.strip()
    if _UV_INSTALLER.fullmatch(text):
        return Effect(kind="install-uv")
    if _UV_PATHS.fullmatch(text):
        return Effect(kind="add-uv-to-path")
    if is_compound(text):
        return None
    words = words_of(text)
    if not words:
        return None
    return _venv_effect(words, variables) or _tool_effect(words) or _path_effect(text, variables)


@lru_cache(maxsize=10_000)
def words_of(command: str) -> tuple[str, ...]:
    """The words of a command as a shell reads them; none if a quote is not closed."""
    try:
        return tuple(shlex.split(command))
    except ValueError:
        return ()


def effects_inside(text: str, variables: Mapping[str, str]) -> list[tuple[int, str, Effect]]:
    """The effects of the commands in a compound or longer text: line from 0, command, effect."""
    effects = []
    for number, line in enumerate(text.split("\n")):
        parts = [line] if _UV_INSTALLER.fullmatch(line.strip()) else _COMPOUND.split(line)
        for part in parts:
            effect = effect_of(part, variables)
            effects += [(number, part.strip(), effect)] if effect else []
    return effects


def rest_after_venv(line: str, command: str, variables: Mapping[str, str]) -> str:
    """What stays of `python -m venv v && . v/bin/activate && pytest` for each of the first two; '' for all else."""
    parts = [part.strip() for part in line.split("&&")]
    leading = list(itertools.takewhile(lambda part: _is_leading(part, variables), parts))
    return " && ".join(parts[len(leading) :]) if command in leading else ""


def _is_leading(part: str, variables: Mapping[str, str]) -> bool:
    effect = effect_of(part, variables)
    return effect is not None and effect.kind in {"create-venv", "activate"}


def is_uv_installer(text: str) -> bool:
    """Whether a text is uv's own installer, and nothing else."""
    return _UV_INSTALLER.fullmatch(text.strip()) is not None


def is_compound(text: str) -> bool:
    """Whether a text contains more than one simple command."""
    return _COMPOUND.search(text.strip()) is not None or "$(" in text or "`" in text


def _venv_effect(words: Sequence[str], variables: Mapping[str, str]) -> Effect | None:
    match words:
        case [python, "-m", "venv" | "virtualenv", *rest] if _PYTHON.fullmatch(python):
            directory = _last_argument(rest)
        case ["virtualenv", *rest]:
            directory = _last_argument(rest)
        case ["uv", "venv", *rest] if not _last_argument(rest):
            return Effect(kind="create-venv", venv=".venv", variable="UV_PROJECT_ENVIRONMENT")
        case ["uv", "venv", *rest]:
            directory = _last_argument(rest)
        case ["source" | ".", path] if path.endswith("/bin/activate"):
            return Effect(kind="activate", venv=in_project(path.removesuffix("/bin/activate"), variables))
        case ["deactivate"]:
            return Effect(kind="deactivate")
        case _:
            return None
    return Effect(kind="create-venv", venv=in_project(directory, variables)) if directory else None


def _last_argument(words: Sequence[str]) -> str:
    values = [word for before, word in zip(["", *words], words, strict=False) if before not in _TAKES_VALUE]
    arguments = [word for word in values if not word.startswith("-")]
    return arguments[0] if len(arguments) == 1 else ""


def _tool_effect(words: Sequence[str]) -> Effect | None:
    match words:
        case [python, "-m", *rest] if _PYTHON.fullmatch(python):
            return _tool_effect(rest)
        case ["pip" | "pip3" | "pipx", "install", *rest]:
            names = {re.split(r"[=<>~!\[]", word)[0] for word in rest if not word.startswith("-")}
            return (
                Effect(kind="install-virtualenv")
                if names == {"virtualenv"}
                else Effect(kind="install-uv")
                if names == {"uv"}
                else None
            )
        case ["uv", "cache", "clean"] | ["uv", "cache", "prune", "--ci"]:
            return Effect(kind="prune-cache")
        case ["uv", "python", "install", *_]:
            return Effect(kind="install-python")
        case ["export", assignment] if (name := assignment.partition("=")[0]) in OVERRIDES and "=" in assignment:
            return Effect(kind="set-variable", variable=name)
    return None


def _path_effect(text: str, variables: Mapping[str, str]) -> Effect | None:
    """A program that is started by its path in an environment of the project, or another use of such a path."""
    paths = [path for path in _programs(text) if _looks_like_venv(in_project(path["venv"], variables))]
    if not paths:
        return None
    venv = in_project(paths[0]["venv"], variables)
    if len(paths) == 1 and paths[0].start() == 0:
        return Effect(kind="run-program", venv=venv, prefix=paths[0][0])
    return Effect(kind="use-path", venv=venv)


def _programs(text: str) -> Iterator[re.Match[str]]:
    """The programs in a text that are in a folder `bin`; a path is read once, however long it is."""
    for path in _PATH.finditer(text):
        start = path.start()
        while match := _VENV_PROGRAM.match(text, start, path.end()):
            yield match
            start = match.end()


def _looks_like_venv(path: str) -> bool:
    return is_inside(path) and re.fullmatch(r"(?:.*/)?\.?\w*v?env\w*", path) is not None
