"""Real lock files of public projects: builder selects what uv installs, and rejects what uv rejects.

The locks are in an optional folder next to the repository, each with the list of packages that uv printed for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import tomli
from packaging.specifiers import SpecifierSet

from builder.errors import LockError
from builder.lock.python import choose_python
from builder.lock.read import read_lock
from builder.lock.select import select
from builder.matrix.schema import Install
from tests.cells import debian

_SHARED = Path(__file__).parents[3] / "shared" / "locks"
_FIRST_LINE = re.compile(r"# uv \S+ sync .*\(CPython (?P<python>[\d.]+), linux x86_64\) rc=(?P<rc>\d+)")

_NO_GROUPS = {"default-groups": False}


def _without_dev(folder: Path) -> Install:
    """The selection of `uv sync --no-dev`: the project's default groups except dev."""
    project = tomli.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    default = project.get("tool", {}).get("uv", {}).get("default-groups", ["dev"])
    return Install.model_validate({**_NO_GROUPS, "groups": tuple(name for name in default if name != "dev")})


MODES: Mapping[str, Callable[[Path], Install]] = {
    "default": lambda _: Install(),
    "nolocal": lambda _: Install(),
    "nogroups": lambda _: Install.model_validate(_NO_GROUPS),
    "nodev": _without_dev,
    "allextras": lambda _: Install(groups="all", extras="all"),
}

pytestmark = [
    pytest.mark.usefixtures("clean_environment"),
    pytest.mark.skipif(not _SHARED.is_dir(), reason="no folder of real lock files next to the repository"),
]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What uv printed: the packages that it installs from a lock with this Python, or its error."""

    python: str
    exit_code: int
    packages: frozenset[str]
    refusal: str


def expected(path: Path) -> Expected:
    """Read a list without the local packages, `name @ file:…`, which jobs install."""
    first, *lines = path.read_text(encoding="utf-8").splitlines()
    match = _FIRST_LINE.fullmatch(first)
    assert match, first
    packages = (line for line in lines if line and not line.startswith("#") and " @ file:" not in line)
    return Expected(
        python=match["python"],
        exit_code=int(match["rc"]),
        packages=frozenset(line.partition(" @ ")[0] for line in packages),
        refusal=" ".join(line.removeprefix("# ") for line in lines if line.startswith("#")),
    )


def _cases() -> list[tuple[Path, str]]:
    return [(folder, mode) for folder in sorted((_SHARED / "uv").glob("*")) for mode in MODES]


def _core(refusal: str) -> str:
    """The first words of an error, without the punctuation that differs between uv versions."""
    return " ".join(re.findall(r"[A-Za-z0-9._-]{3,}", refusal.removeprefix("error: "))[:8])


@pytest.mark.parametrize(("folder", "mode"), _cases(), ids=lambda value: getattr(value, "name", value))
def test_selection_is_what_uv_installs(folder: Path, mode: str) -> None:
    """Broken: an image contains packages or versions other than those that a job's `uv sync` installs."""
    oracle = expected(folder / "expected" / f"sync-{mode}.txt")
    cell = debian(oracle.python)
    if oracle.exit_code:
        with pytest.raises(LockError) as raised:
            select(read_lock(folder / "uv.lock", MODES[mode](folder)), cell)
        assert _core(oracle.refusal) in " ".join(re.findall(r"[A-Za-z0-9._-]{3,}", str(raised.value)))
        return
    chosen = select(read_lock(folder / "uv.lock", MODES[mode](folder)), cell).packages
    # For packages from git or a URL, the lists contain only the name.
    selected = {each.name if each.name in oracle.packages else f"{each.name}=={each.version}" for each in chosen}
    assert selected == oracle.packages


@pytest.mark.parametrize("path", sorted((_SHARED / "pylock").glob("*/pylock*.toml")), ids=lambda path: path.parent.name)
def test_pylock_is_selected_from(path: Path) -> None:
    """Broken: builder rejects a PEP 751 lock that another tool wrote, or selects nothing from it."""
    lock = read_lock(path, Install())
    admitted = lock.pylock.requires_python or SpecifierSet()
    chosen = select(lock, debian("3.12" if "3.12.1" in admitted else choose_python(lock, debian).version)).packages
    assert {each.name for each in chosen} <= {package.name for package in lock.pylock.packages}
    assert chosen
