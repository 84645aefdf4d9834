"""Pins of a requirements file, and what they say together: files that include each other often repeat one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

Hashes = Mapping[str, frozenset[str]]  # {"sha256": {hex, …}}


@dataclass(frozen=True, kw_only=True)
class Pin:
    """A requirement that names exactly one version or URL, its hashes, and its place: `requirements.txt:3`."""

    requirement: Requirement
    hashes: Hashes
    place: str

    @property
    def name(self) -> str:
        """The normalized name."""
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        """The version, or an empty string for a URL."""
        return pinned_version(self.requirement)

    @property
    def target(self) -> Version | str:
        """What is pinned: equal for two pins that agree, even if one says 1.0 and the other 1.0.0."""
        try:
            return Version(self.version)
        except InvalidVersion:
            return self.requirement.url or self.version

    def __str__(self) -> str:
        what = f"{self.name} @ …" if self.requirement.url else f"{self.name}=={self.version}"
        return f"{what} ({self.place})"


def pinned_version(requirement: Requirement) -> str:
    """The only version that the requirement admits; an empty string if it is not pinned with `==`."""
    specifiers = list(requirement.specifier)
    if len(specifiers) != 1 or specifiers[0].operator not in {"==", "==="} or specifiers[0].version.endswith("*"):
        return ""
    return specifiers[0].version


def merge(pins: Sequence[Pin]) -> list[Pin]:
    """One pin for all that agree: for every environment of one of them, with the hashes that all of them allow."""
    merged: dict[tuple[str, Version | str], Pin] = {}
    for pin in pins:
        key = pin.name, pin.target
        merged[key] = _both(merged[key], pin) if key in merged else pin
    return list(merged.values())


def _both(first: Pin, second: Pin) -> Pin:
    requirement = Requirement(str(first.requirement))
    requirement.marker = _either(first.requirement.marker, second.requirement.marker)
    return replace(first, requirement=requirement, hashes=_common(first.hashes, second.hashes))


def _either(first: Marker | None, second: Marker | None) -> Marker | None:
    if first is None or second is None:
        return None
    return first if first == second else Marker(f"({first}) or ({second})")


def _common(first: Hashes, second: Hashes) -> Hashes:
    """The hashes in both, as pip reads them; if they share no algorithm, the first ones."""
    return {name: first[name] & second[name] for name in first if name in second} or first


def disagreements(pins: Sequence[Pin], constraints: Sequence[tuple[Requirement, str]]) -> Iterator[str]:
    """The pins that no environment can meet together, and those outside a constraint, each with both places."""
    first: dict[tuple[str, Marker | None], Pin] = {}
    for pin in pins:
        other = first.setdefault((pin.name, pin.requirement.marker), pin)
        if other.target != pin.target:
            yield f"{pin} disagrees with {other}; keep one of them"
        elif not all(_common(other.hashes, pin.hashes).values()):
            yield f"{pin} has other hashes than {other}; pin both again"
    for pin in pins:
        for constraint, place in constraints:
            if canonicalize_name(constraint.name) == pin.name and not _meets(pin, constraint):
                yield f"{pin} disagrees with the constraint {constraint.specifier} ({place}); change one of them"


def _meets(pin: Pin, constraint: Requirement) -> bool:
    if constraint.marker or not isinstance(pin.target, Version):
        return True  # not for every environment, or no version to compare
    return constraint.specifier.contains(pin.target, prereleases=True)
