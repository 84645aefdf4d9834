"""The Python of a project without a matrix, and why it is that one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from packaging.pylock import PackageSdist
from packaging.specifiers import SpecifierSet

from builder.errors import LockError, listed
from builder.lock.choice import Fault, choose
from builder.lock.environment import NEWEST_PATCH
from builder.lock.model import Lock
from builder.lock.project import requires_python
from builder.lock.text import read_file
from builder.matrix.facts import NEWEST_PYTHON, OLDEST_PYTHON
from builder.matrix.model import Cell


@dataclass(frozen=True, kw_only=True)
class PythonChoice:
    """A Python version for the matrix: 3.12, or 3.10.19 if the lock admits only that. `reason` is for people."""

    version: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A Python version, what prevents an installation, and the packages with wheels only for other Pythons."""

    version: str
    faults: tuple[Fault, ...]
    without_wheel: tuple[str, ...]

    @property
    def drawback(self) -> str:
        if self.faults:
            return f"{self.version}: {listed([fault.reason for fault in self.faults], most=1)}"
        return f"{self.version} has no wheel of {listed(self.without_wheel, most=3)}"


def choose_python(lock: Lock, cell_of: Callable[[str], Cell]) -> PythonChoice:
    """Choose the Python of `.python-version`, else the newest with which the lock can be installed.

    `cell_of` returns the cell of a Python version. A version without wheels of some packages is chosen only if none has
    more. Raises LockError if no known version can be chosen.
    """
    pinned = _python_version_file(lock)
    preferred = _judged(pinned, lock, cell_of) if pinned else None
    if preferred and not preferred.faults:
        return PythonChoice(version=preferred.version, reason=".python-version names it")
    rejected = [preferred] if preferred else []
    for version in _admitted(lock):
        candidate = _judged(version, lock, cell_of)
        if not candidate.faults and not candidate.without_wheel:
            return PythonChoice(version=version, reason=_reason(rejected))
        rejected.append(candidate)
    best = min(rejected, key=lambda each: (len(each.faults), len(each.without_wheel)))
    if best.faults:
        is_by_setting = best.faults[0].is_by_setting
        change = "change those settings in [tool.uv], or the options in the file, " if is_by_setting else ""
        raise LockError(
            f"{lock.path} cannot be installed on {cell_of(best.version).base} with any Python that it admits; "
            f"nearest is {best.version}:" + "\n  ".join(["", *(fault.reason for fault in best.faults)]),
            hint=f"{change}lock again for this environment, or name another base in a matrix.toml",
        )
    return PythonChoice(version=best.version, reason=_reason(rejected[: rejected.index(best)]))


def _reason(rejected: list[_Candidate]) -> str:
    """Why the version was chosen, given those that were preferred and cannot be used."""
    text = "the newest that the lock can be installed with"
    return f"{text} ({'; '.join(each.drawback for each in rejected[:2])})" if rejected else text


def _judged(version: str, lock: Lock, cell_of: Callable[[str], Cell]) -> _Candidate:
    choice = choose(lock, cell_of(version))
    return _Candidate(
        version=version,
        faults=choice.faults,
        without_wheel=tuple(
            package.name for package, source in choice.sources if package.wheels and isinstance(source, PackageSdist)
        ),
    )


def _python_version_file(lock: Lock) -> str | None:
    """The CPython release that `.python-version` names; None if it names something else."""
    path = lock.project / ".python-version"
    if not path.is_file():
        return None
    lines = [line.strip() for line in read_file(path).splitlines()]
    pin = next((line for line in lines if line and not line.startswith("#")), "")
    match = re.fullmatch(r"(?:cpython[-@])?(?P<version>3\.[0-9]{1,2}(?:\.[0-9]{1,3})?)", pin)
    return match["version"] if match else None


def _admitted(lock: Lock) -> Iterator[str]:
    """The known Pythons that the lock admits, newest first; with a patch release if it excludes the newest one."""
    required = lock.pylock.requires_python or SpecifierSet()
    if lock.kind in {"pylock.toml", "requirements.txt"}:  # uv's own locks include it
        required &= requires_python(lock)
    found = False
    for minor in range(NEWEST_PYTHON, OLDEST_PYTHON - 1, -1):
        patch = next((patch for patch in range(NEWEST_PATCH, -1, -1) if required.contains(f"3.{minor}.{patch}")), None)
        if patch is not None:
            found = True
            yield f"3.{minor}" if patch == NEWEST_PATCH else f"3.{minor}.{patch}"
    if not found:
        raise LockError(
            f"{lock.path} requires Python {required}; "
            f"without a matrix builder uses 3.{OLDEST_PYTHON} to 3.{NEWEST_PYTHON}",
            hint="name the Python version in a matrix.toml",
        )
