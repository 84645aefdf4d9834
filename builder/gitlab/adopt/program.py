"""The programs that a script runs: those it names, those of the `make` targets, and those of scripts that it calls."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

MOST_FILES: Final = 20  # that are read for one script
_SEPARATOR: Final = re.compile(r"&&|\|\||[;|&\n(){}`]|\$\(")
_QUOTED: Final = re.compile(r"(?<!-c )([\"'])(?:(?!\1|\$\(|`|\n).)*\1")
_ASSIGNMENT: Final = re.compile(r"\w+=(?:\"[^\"]*\"|'[^']*'|\S*)\s*")
_BEFORE: Final = frozenset(
    {"sudo", "time", "exec", "env", "nohup", "if", "then", "else", "elif", "while", "until", "do", "!", "eval",
     "command", "xargs", "watch"}
)  # fmt: skip
_RUNNERS: Final = re.compile(
    r"(?:python[\d.]* -m|uvx|pipx run|(?:uv|poetry|pdm|hatch|pipenv|rye) run(?: --\S+)*)\s+(?:-\S+\s+)*"
)
_TARGET: Final = re.compile(r"(?P<names>[^\s:=#][^:=#]*)::?(?!=)(?P<needs>[^=]*)")


@dataclass(frozen=True, kw_only=True)
class Use:
    """A program, and the simple command that runs it; `via` is the line of the script if that command is elsewhere."""

    program: str
    command: str
    via: str = ""


@lru_cache(maxsize=50_000)
def uses_in(text: str) -> tuple[Use, ...]:
    """The programs that a script runs."""
    return tuple(_uses(text, None, "", set()))


def uses_below(text: str, folder: Path | None) -> Iterator[Use]:
    """The programs that a script runs; with the project's folder, also those of `make` targets and shell scripts."""
    yield from _uses(text, folder, "", set())


def _uses(text: str, folder: Path | None, via: str, seen: set[tuple[Path, str]]) -> Iterator[Use]:
    text = re.sub(r"\\\n\s*", " ", text)
    for part in _SEPARATOR.split(_QUOTED.sub(lambda match: re.sub(r"[;&|(){}]", " ", match[0]), text)):
        words = _without_lead(part.strip())
        if not words or words[0].startswith("#"):
            continue
        command = " ".join(words)
        yield Use(program=_name(words[0]), command=command, via=via)
        if runner := _RUNNERS.match(command):
            rest = command[runner.end() :].split()
            yield from (Use(program=_name(word), command=" ".join(rest), via=via) for word in rest[:1])
        if words[0] in {"sh", "bash"} and re.fullmatch(r"-[a-z]*c", "".join(words[1:2])):
            yield from _uses(" ".join(words[2:]).strip("\"'"), folder, via or command, seen)
        if folder and len(seen) < MOST_FILES:
            for inner in _called(words, folder, seen):
                yield from _uses(inner, folder, via or command, seen)


def _name(word: str) -> str:
    """The name of a program, without its folder; one of a module with dashes, as the program itself has it."""
    return word.strip("\"'").rpartition("/")[2].replace("_", "-")


def _without_lead(part: str) -> list[str]:
    """The words of a command without assignments, `sudo` and the like before it."""
    while match := _ASSIGNMENT.match(part):
        part = part[match.end() :]
    words = part.split()
    while words and (words[0] in _BEFORE or (words[0].startswith("-") and len(words) > 1)):
        words = words[1:]
    return _without_lead(" ".join(words)) if words and _ASSIGNMENT.match(words[0]) else words


def _called(words: Sequence[str], folder: Path, seen: set[tuple[Path, str]]) -> Iterator[str]:
    """The recipes of `make` targets, or the text of a script of the project, each once."""
    if _name(words[0]) == "make":
        yield from _recipes(words, folder, seen)
        return
    arguments = [word for word in words[1:] if not word.startswith("-")]
    name = arguments[0] if words[0] in {"sh", "bash", "source", "."} and arguments else words[0]
    if "/" in name or words[0] != name:
        path = folder / name.removeprefix("./")
        text = read_inside(path, folder) if (path, "") not in seen else ""
        seen.add((path, ""))
        if path.suffix in {".sh", ".bash"} or re.match(r"#!\S*(?:sh|env \w*sh)\b", text):
            yield text


def _recipes(words: Sequence[str], folder: Path, seen: set[tuple[Path, str]]) -> Iterator[str]:
    options = dict(itertools.pairwise(words))
    below = folder / options["-C"] if "-C" in options else folder
    names = [options["-f"]] if "-f" in options else ["GNUmakefile", "makefile", "Makefile"]
    text = next((text for name in names if (text := read_inside(below / name, folder))), "")
    taken = {options.get("-C"), options.get("-f")}
    targets = [word for word in words[1:] if not word.startswith("-") and "=" not in word and word not in taken]
    rules = _rules(text)
    queue = targets or [next((name for name in rules if not name.startswith(".")), "")]
    while queue:
        target = queue.pop()
        if target in rules and (below, target) not in seen:
            seen.add((below, target))
            needs, recipe = rules[target]
            queue += needs
            yield recipe


def _rules(text: str) -> dict[str, tuple[list[str], str]]:
    """The rules of a Makefile by target: prerequisites and recipe."""
    needs: defaultdict[str, list[str]] = defaultdict(list)
    recipes: defaultdict[str, str] = defaultdict(str)
    names: list[str] = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.startswith("\t"):
            for name in names:
                recipes[name] += line.strip().lstrip("@-+ ").replace("$(MAKE)", "make").replace("$$", "$") + "\n"
        elif match := _TARGET.fullmatch(line.partition("#")[0]):
            names = match["names"].split()
            for name in names:
                needs[name] += match["needs"].partition(";")[0].split()
        elif line.strip():
            names = []
    return {name: (needs[name], recipes[name]) for name in needs}


def read_inside(path: Path, folder: Path) -> str:
    """The text of a file of the project; '' if there is none, or if it is elsewhere."""
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
        return path.read_text(encoding="utf-8", errors="replace")[:200_000] if inside and path.is_file() else ""
    except OSError:
        return ""
