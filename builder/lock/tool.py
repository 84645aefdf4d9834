"""Tools that no lock has, such as ruff: uv chooses their packages, as `uv tool install` would in the image.

What a requirement stands for is decided when a run starts, as with the tag of a base image: the newest version that it
admits and that has wheels for the cell. From then on the plan has the exact files.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import tomli_w
from packaging.pylock import Package
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from builder.errors import LockError, MatrixError, RegistryError
from builder.index_mirror import IndexMirrors
from builder.lock.build_system import index_settings
from builder.lock.choice import wheel_for
from builder.lock.model import Lock, SelectedPackage, Tool
from builder.lock.select import selected_package
from builder.lock.table import parse_table
from builder.lock.text import read_toml
from builder.lock.uv import run_uv
from builder.matrix.model import Cell
from builder.redaction import redact

_LANES: Final = 4
_DRAWN: Final = re.compile(r"[×╰─▶│]")  # with which uv draws its reasons


@dataclass(frozen=True)
class _Question:
    """What uv is asked, and so what cells have the same answer: `settings` is the text of a `uv.toml`."""

    requirement: str
    python: str
    platform: str
    settings: str


def resolve_tools(
    requirements: Iterable[str], locks: Mapping[Cell, Lock], mirrors: IndexMirrors
) -> dict[Cell, tuple[Tool, ...]]:
    """The tools of each cell, from the indexes of its lock.

    Raises MatrixError if there is no such package, or none with wheels for a cell; RegistryError if an index does not
    answer.
    """
    wanted = tuple(requirements)
    if not wanted:
        return dict.fromkeys(locks, ())
    settings = {id(lock): _settings(lock, mirrors) for lock in locks.values()}
    questions = {
        cell: [_Question(each, _python(cell), cell.uv_platform, settings[id(lock)]) for each in wanted]
        for cell, lock in locks.items()
    }
    askers: dict[_Question, Cell] = {}  # the first that asks is named where there is no answer
    for cell, asked in questions.items():
        askers |= {question: cell for question in asked if question not in askers}
    with ThreadPoolExecutor(_LANES) as pool:
        answers = dict(zip(askers, pool.map(lambda pair: _resolve(*pair), askers.items()), strict=True))
    return {
        cell: tuple(_tool(question, answers[question], cell, mirrors) for question in asked)
        for cell, asked in questions.items()
    }


def _python(cell: Cell) -> str:
    return cell.uv_python.version if cell.uv_python else cell.interpreter.version


def _settings(lock: Lock, mirrors: IndexMirrors) -> str:
    found = dict(index_settings(lock, {package.index for package in lock.pylock.packages}))
    for name in ("index-url", "extra-index-url"):
        if isinstance(found.get(name), str):
            found[name] = mirrors.locate(found[name])
        elif name in found:
            found[name] = [mirrors.locate(url) for url in found[name]]
    if "index" in found:
        found["index"] = [{**index, "url": mirrors.locate(index["url"])} for index in found["index"]]
    return tomli_w.dumps(found)


def _resolve(question: _Question, cell: Cell) -> tuple[Package, ...]:
    """Ask uv for the packages; the cell is for messages."""
    argv = [
        "pip", "compile", "--quiet", "--no-header", "--format", "pylock.toml", "--only-binary", ":all:",
        "--python", sys.executable, "--python-version", question.python, "--python-platform", question.platform,
        "--config-file", "uv.toml", "tools.in",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="builder-") as scratch:
        folder = Path(scratch)
        (folder / "uv.toml").write_text(question.settings, encoding="utf-8")
        (folder / "tools.in").write_text(question.requirement + "\n", encoding="utf-8")
        answer = run_uv(argv, folder, offline=False)
    if answer.returncode:
        raise _unresolved(question, cell, answer.stderr)
    try:
        where = Path("what uv says")
        return tuple(parse_table(where, "pylock.toml", read_toml(where, answer.stdout)).packages)
    except LockError as error:
        raise RegistryError(f"tools: {question.requirement} for {cell.name}: {error.what}") from error


def _unresolved(question: _Question, cell: Cell, said: str) -> MatrixError | RegistryError:
    text = " ".join(_DRAWN.sub("", redact(said)).partition("hint:")[0].split())
    reason = text.removeprefix("error: ")
    if "No solution found" in text:
        reason = re.sub(r"^No solution found when resolving dependencies:?( cause:)? ?", "", reason)
        hint = "correct the name or the version under tools in the matrix; tools are installed from wheels only"
        return MatrixError(f"tools: {question.requirement} cannot be installed in {cell.name}: {reason}", hint=hint)
    what = f"tools: the index cannot be asked for {question.requirement}: {reason}"
    return RegistryError(what, hint="tools that the matrix names are looked up in each run, like tags of base images")


def _tool(question: _Question, packages: Iterable[Package], cell: Cell, mirrors: IndexMirrors) -> Tool:
    own = canonicalize_name(Requirement(question.requirement).name)
    selected = sorted((_wheel(question, each, cell, mirrors) for each in packages), key=lambda each: each.name != own)
    return Tool(requirement=question.requirement, packages=tuple(selected))


def _wheel(question: _Question, package: Package, cell: Cell, mirrors: IndexMirrors) -> SelectedPackage:
    wheel = wheel_for(package, cell)
    if wheel is None or not wheel.url:
        raise MatrixError(
            f"tools: {question.requirement} cannot be installed in {cell.name}: {package.name} {package.version} has "
            "no wheel for it",
            hint="name another version under tools in the matrix; tools are installed from wheels only",
        )
    if not wheel.hashes:
        raise RegistryError(f"tools: {question.requirement}: the index gives no hash of {wheel.filename}")
    found = selected_package(package, wheel)
    source: dict[str, Any] = {**found.source, "url": mirrors.named(str(found.source["url"]))}
    return replace(found, source=source)
