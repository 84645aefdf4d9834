"""Real lock files of public projects: what builder selects is what uv installs, and what uv refuses is refused.

The oracle is a folder of locks with the lists that uv printed for each; it lies beside the repository or not at all.
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
from builder.lock.project import newest_python
from builder.lock.read import read_lock
from builder.lock.select import select
from builder.matrix.schema import Install
from tests.cells import debian

_SHARED = Path(__file__).parents[3] / "shared" / "locks"
_FIRST_LINE = re.compile(r"# uv \S+ sync .*\(CPython (?P<python>[\d.]+), linux x86_64\) rc=(?P<rc>\d+)")

_NO_GROUPS = {"default-groups": False}


def _without_dev(folder: Path) -> Install:
    """What `uv sync --no-dev` leaves: the project's default groups but dev."""
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
    pytest.mark.skipif(not _SHARED.is_dir(), reason="no folder of real lock files beside the repository"),
]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What uv installs from a lock with a Python, as it printed it; or with which words it refuses."""

    python: str
    exit_code: int
    packages: frozenset[str]
    refusal: str


def expected(path: Path) -> Expected:
    """Read a list. Local packages, `name @ file:…`, are left out: jobs install those."""
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


def _says(refusal: str) -> str:
    """The core of a refusal, without the styles in which uv's versions quote and order it."""
    return " ".join(re.findall(r"[A-Za-z0-9._-]{3,}", refusal.removeprefix("error: "))[:8])


@pytest.mark.parametrize(("folder", "mode"), _cases(), ids=lambda value: getattr(value, "name", value))
def test_selection_is_what_uv_installs(folder: Path, mode: str) -> None:
    """Broken: an image holds other packages, or versions, than a job's `uv sync` wants."""
    oracle = expected(folder / "expected" / f"sync-{mode}.txt")
    cell = debian(oracle.python)
    if oracle.exit_code:
        with pytest.raises(LockError) as raised:
            select(read_lock(folder / "uv.lock", MODES[mode](folder)), cell)
        assert _says(oracle.refusal) in " ".join(re.findall(r"[A-Za-z0-9._-]{3,}", str(raised.value)))
        return
    chosen = select(read_lock(folder / "uv.lock", MODES[mode](folder)), cell).packages
    # Of packages from git or from a URL the lists have the name alone.
    found = {each.name if each.name in oracle.packages else f"{each.name}=={each.version}" for each in chosen}
    assert found == oracle.packages


@pytest.mark.parametrize("path", sorted((_SHARED / "pylock").glob("*/pylock*.toml")), ids=lambda path: path.parent.name)
def test_pylock_is_selected_from(path: Path) -> None:
    """Broken: a PEP 751 lock that another tool wrote is refused, or nothing is taken from it."""
    lock = read_lock(path, Install())
    admitted = lock.pylock.requires_python or SpecifierSet()
    chosen = select(lock, debian("3.12" if "3.12.1" in admitted else newest_python(lock))).packages
    assert {each.name for each in chosen} <= {package.name for package in lock.pylock.packages}
    assert chosen
