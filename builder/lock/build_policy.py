"""Which packages may be installed as wheels and which may be built: `no-build`, `no-binary` and their like in uv."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from builder.lock.text import entries, entry


@dataclass(frozen=True, kw_only=True)
class BuildPolicy:
    """The packages that must not be built, and those that must be; None stands for every package.

    `allows_source` is what the matrix says besides the project's settings.
    """

    no_build: frozenset[str] | None = frozenset()
    no_binary: frozenset[str] | None = frozenset()
    allows_source: bool = True

    @classmethod
    def from_settings(cls, path: Path, settings: Mapping[str, Any]) -> BuildPolicy:
        """Take the policy from uv's settings in the file; raise LockError if one has a wrong type."""
        return cls(no_build=_names(path, settings, "no-build"), no_binary=_names(path, settings, "no-binary"))

    @classmethod
    def from_pip_settings(cls, path: Path, settings: Mapping[str, Any]) -> BuildPolicy:
        """Take the policy of `uv pip`, which adds those in the table `pip`, named like pip's options."""
        pip: Mapping[str, Any] = entry(path, settings, "pip", dict, {})
        policy = cls.from_settings(path, settings)
        only_binary = None if entry(path, pip, "no-build", bool, False) else _listed(path, pip, "only-binary")
        return cls(
            no_build=_united(policy.no_build, only_binary),
            no_binary=_united(policy.no_binary, _listed(path, pip, "no-binary")),
        )

    def with_options(self, path: Path, options: Mapping[str, Any]) -> BuildPolicy:
        """The policy with the options of a requirements file, `only-binary` and `no-binary`, besides."""
        return replace(
            self,
            no_build=_united(self.no_build, _listed(path, options, "only-binary")),
            no_binary=_united(self.no_binary, _listed(path, options, "no-binary")),
        )

    def forbids_build(self, name: str) -> bool:
        """Whether the package may be installed from a wheel only."""
        return not self.allows_source or self.no_build is None or name in self.no_build

    def forbids_wheel(self, name: str) -> bool:
        """Whether the package must be built from source."""
        return self.no_binary is None or name in self.no_binary


def _names(path: Path, settings: Mapping[str, Any], key: str) -> frozenset[str] | None:
    if entry(path, settings, key, bool, False):
        return None
    return frozenset(canonicalize_name(name) for name in entries(path, settings, f"{key}-package", str))


def _listed(path: Path, pip: Mapping[str, Any], key: str) -> frozenset[str] | None:
    names = entries(path, pip, key, str)
    return None if ":all:" in names else frozenset(map(canonicalize_name, names))


def _united(first: frozenset[str] | None, second: frozenset[str] | None) -> frozenset[str] | None:
    return None if first is None or second is None else first | second
