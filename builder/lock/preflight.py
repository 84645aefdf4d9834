"""What every cell would install, and what it cannot, before anything is built: all cells and packages at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from packaging.pylock import Package

from builder.errors import LockError, listed
from builder.lock.build_policy import BuildPolicy
from builder.lock.choice import Choice, Fault, choose, installs, policy_of
from builder.lock.model import Lock, SelectedPackage, Selection
from builder.lock.requirer import requirers
from builder.lock.select import selection_of
from builder.lock.source_tree import SourceTree
from builder.lock.system_package import is_known, missing_for
from builder.lock.wheel import tags_of, wheels_that_exist
from builder.matrix.facts import NEWEST_PYTHON, OLDEST_PYTHON
from builder.matrix.model import Cell

Way = Literal["wheel", "build", "impossible"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """How a cell installs a package, and, unless that is from a wheel, why.

    `missing` are the build packages to add to the base; `required_by` and `nearest` (other cells that could install
    the package) are given for what is impossible. Without a `name`, the whole cell is at fault.
    """

    name: str | None
    version: str | None
    way: Way
    reason: str = ""
    hint: str = ""
    missing: tuple[str, ...] = ()
    required_by: tuple[str, ...] = ()
    nearest: tuple[str, ...] = ()
    is_yanked: bool = False


@dataclass(frozen=True, kw_only=True)
class CheckedCell:
    """A cell, the path of its lock, and its findings, sorted by name."""

    cell: Cell
    lock: Path
    findings: tuple[Finding, ...]

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings for which the cell cannot be built."""
        return tuple(finding for finding in self.findings if finding.way == "impossible")


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """All cells, and a URL on each host that their files come from, by the host's name."""

    cells: tuple[CheckedCell, ...]
    hosts: Mapping[str, str]

    @property
    def good(self) -> tuple[Cell, ...]:
        """The cells that can be built."""
        return tuple(checked.cell for checked in self.cells if not checked.faults)

    def of(self, lock: Path) -> Preflight:
        """What was found for one lock."""
        return replace(self, cells=tuple(checked for checked in self.cells if checked.lock == lock))


# Looks into the sdists of packages, and returns what it could find out, by URL.
Inspect = Callable[[Sequence[SelectedPackage]], Mapping[str, SourceTree]]


def preflight(locks: Mapping[Cell, Lock], inspect: Inspect = lambda _: {}) -> Preflight:
    """Check every cell against its lock; `inspect` looks into the sdists that would be built."""
    choices = {cell: choose(lock, cell) for cell, lock in locks.items()}
    advisors: dict[str, _Advisor] = {}
    selections = [selection_of(locks[cell], cell, choice) for cell, choice in choices.items()]
    trees = inspect(_unknown(selections))
    checked: list[CheckedCell] = []
    hosts: dict[str, str] = {}
    for selection, (cell, choice) in zip(selections, choices.items(), strict=True):
        hosts |= _hosts(selection)
        findings = list(_installed(selection, choice, trees, policy_of(locks[cell])))
        if choice.faults:
            advisor = advisors.get(cell.profile) or _Advisor.of(locks, cell)
            advisors[cell.profile] = advisor
            findings += [advisor.explain(fault, cell) for fault in choice.faults]
        findings.sort(key=lambda finding: finding.name or "")
        checked.append(CheckedCell(cell=cell, lock=locks[cell].path, findings=tuple(findings)))
    return Preflight(cells=tuple(checked), hosts=hosts)


def _unknown(selections: Sequence[Selection]) -> list[SelectedPackage]:
    """The packages that are built from an sdist in a cell, and for which nobody has noted what that needs."""
    built = [package for selection in selections for package in selection.downloads if package.artifact == "sdist"]
    return list({package.source["url"]: package for package in built if not is_known(package.name)}.values())


def _installed(
    selection: Selection, choice: Choice, trees: Mapping[str, SourceTree], policy: BuildPolicy
) -> Iterator[Finding]:
    packages: dict[tuple[str, str], Package] = {
        (package.name, str(package.version or "")): package
        for sources in (*choice.cached, choice.sources) for package, _ in sources
    }  # fmt: skip
    for selected in selection.downloads:
        package = packages[selected.name, selected.version or ""]
        yanked = bool((package.tool or {}).get("builder", {}).get("yanked"))
        found = Finding(name=selected.name, version=selected.version, way="wheel", is_yanked=yanked)
        if selected.is_wheel:
            yield found
            continue
        built = _built(found, selected, package, selection.cell, trees.get(str(selected.source["url"])))
        is_forced = bool(package.wheels) and policy.forbids_wheel(package.name)
        yield replace(built, reason="its wheels are not to be used: no-binary") if is_forced else built


def _built(found: Finding, selected: SelectedPackage, package: Package, cell: Cell, tree: SourceTree | None) -> Finding:
    names = [wheel.filename for wheel in package.wheels or ()]
    if selected.artifact == "vcs":
        reason = "from git"
    else:
        reason = f"its wheels do not fit: {wheels_that_exist(names, cell)}" if names else "it has no wheel"
    # Without the sdist, by its wheels: a project that has some for single platforms compiles something.
    is_compiled = tree.is_compiled if tree else any(tag.platform != "any" for name in names for tag in tags_of(name))
    missing = missing_for(selected, cell, is_compiled=is_compiled, is_rust=bool(tree and tree.is_rust))
    is_pure = tree is not None and not tree.is_compiled
    return replace(found, way="build", reason=f"{reason}; it is pure Python" if is_pure else reason, missing=missing)


class _Advisor:
    """Says for each fault of a profile's cells who requires the package, and which of them could install it."""

    def __init__(self, *, lock: Lock, cells: tuple[Cell, ...]) -> None:
        self.lock = lock
        self.cells = cells
        self.required_by = requirers(lock)
        self.policy = policy_of(lock)
        self.answers: dict[tuple[int, Cell], bool] = {}  # by the identity of the lock's package

    @classmethod
    def of(cls, locks: Mapping[Cell, Lock], cell: Cell) -> _Advisor:
        """The one for the cell's profile, whose cells have one lock."""
        return cls(lock=locks[cell], cells=tuple(other for other in locks if other.profile == cell.profile))

    def explain(self, fault: Fault, cell: Cell) -> Finding:
        """The finding for a fault of the cell."""
        package = fault.package
        found = Finding(name=None, version=None, way="impossible", reason=fault.reason, hint=fault.hint)
        if package is None:
            return found
        return replace(
            found,
            name=package.name,
            version=str(package.version) if package.version else None,
            required_by=self.required_by.get(package.name, ()),
            nearest=tuple(islice(self._nearest(package, cell), 2)),
        )

    def _nearest(self, package: Package, cell: Cell) -> Iterator[str]:
        """The names of the cells that could install the package, nearest first: same base, then same Python."""
        return (other.name for other in self._others(cell) if self._installs(package, other))

    def _others(self, cell: Cell) -> Iterator[Cell]:
        minor = cell.interpreter.minor[1]
        known = range(OLDEST_PYTHON, NEWEST_PYTHON + 1)
        for other in sorted(known, key=lambda each: (abs(each - minor), -each)):
            yield replace(cell, python=f"3.{other}", uv_python=None)
        yield from (other for other in self.cells if other.python == cell.python and other.base != cell.base)

    def _installs(self, package: Package, cell: Cell) -> bool:
        key = id(package), cell
        if key not in self.answers:
            self.answers[key] = installs(self.lock, package, cell, self.policy)
        return self.answers[key]


def _hosts(selection: Selection) -> dict[str, str]:
    urls = [str(url) for package in selection.downloads for url in (package.source["url"], package.index) if url]
    return {host: url for url in urls if (host := urlsplit(url).hostname)}


def preflight_error(found: Preflight) -> LockError | None:
    """One error for all faults of all cells, those that several cells share once; None if there is none."""
    shared: dict[tuple[str | None, str], list[tuple[Cell, Finding]]] = {}
    for checked in found.cells:
        for finding in checked.faults:
            shared.setdefault((finding.name, finding.reason), []).append((checked.cell, finding))
    if not shared:
        return None
    bad = [checked.cell.name for checked in found.cells if checked.faults]
    paths = list(dict.fromkeys(str(checked.lock) for checked in found.cells if checked.faults))
    refused = f"{' and '.join(paths)} {'does' if len(paths) == 1 else 'do'} not cover"
    texts = {_explained([finding for _, finding in faults]): faults for faults in shared.values()}
    hint = next(iter(shared.values()))[0][1].hint
    if len(texts) == 1:
        cells = f"the cell{'s' if len(bad) > 1 else ''} {', '.join(bad)}"
        return LockError(f"{refused} {cells}: {next(iter(texts))}", hint=hint)
    lines = [f"{', '.join(cell.name for cell, _ in faults)}: {text}" for text, faults in texts.items()]
    return LockError("\n  ".join([f"{refused} the cells {', '.join(bad)}:", *lines]), hint=hint)


def _explained(findings: Sequence[Finding]) -> str:
    """The text for findings of several cells that differ only in the nearest cells."""
    required_by = findings[0].required_by
    nearest = list(dict.fromkeys(name for finding in findings for name in finding.nearest))
    required = f"; required by {listed(required_by, most=3)}" if required_by else ""
    return findings[0].reason + required + (f"; {listed(nearest, most=3)} could install it" if nearest else "")
