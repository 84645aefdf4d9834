"""Pythons: as a matrix writes them, such as 3.13, 3.13t or pypy3.11, and as uv installs them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from builder.contract import UV_PYTHONS

Implementation = Literal["cpython", "pypy"]
PythonSource = Literal["base", "uv"]  # whose Python an image has
Variant = Literal["default", "freethreaded"]
PYTHON_PATTERN: Final = r"(3\.[0-9]{1,2}(\.[0-9]{1,3})?t?|pypy3\.[0-9]{1,2}(\.[0-9]{1,3})?)"


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """A Python that a matrix asks for. `release` is (3, 13), or (3, 13, 2) if the patch release is pinned."""

    implementation: Implementation
    release: tuple[int, ...]
    variant: Variant = "default"

    @classmethod
    @lru_cache(maxsize=64)
    def from_str(cls, text: str) -> Interpreter:
        """Parse `3.13`, `3.13.2`, `3.13t` or `pypy3.11`; raise ValueError for anything else."""
        if not re.fullmatch(PYTHON_PATTERN, text):
            raise ValueError(f"{text!r} is not a Python version")
        return cls(
            implementation="pypy" if text.startswith("pypy") else "cpython",
            release=tuple(map(int, text.removeprefix("pypy").removesuffix("t").split("."))),
            variant="freethreaded" if text.endswith("t") else "default",
        )

    @property
    def minor(self) -> tuple[int, int]:
        """Such as (3, 13)."""
        return self.release[0], self.release[1]

    @property
    def version(self) -> str:
        """The version of the language that it asks for: 3.13, or 3.13.2."""
        return ".".join(map(str, self.release))

    @property
    def is_free_threaded(self) -> bool:
        """Whether it is a CPython without the global interpreter lock (PEP 703)."""
        return self.variant == "freethreaded"

    @property
    def is_usual(self) -> bool:
        """Whether it is a CPython as most images have it, and neither PyPy nor free-threaded."""
        return self.implementation == "cpython" and not self.is_free_threaded


@dataclass(frozen=True, kw_only=True)
class UvPython:
    """A Python that uv installs, exactly.

    `key` is uv's name for it, such as `cpython-3.13.2-linux-x86_64-gnu`; `version` is that of the language, `release`
    that of the implementation, which differs for PyPy. `archive` is the name of the file that it is installed from,
    which tells builds of one version apart.
    """

    key: str
    version: str
    release: str
    archive: str

    @property
    def home(self) -> str:
        """The folder that it is installed to, in an image."""
        return f"{UV_PYTHONS}/{self.key}"

    @property
    def name(self) -> str:
        """Implementation, version and variant, such as `cpython-3.13.2+freethreaded`."""
        implementation, version, _ = self.key.split("-", 2)
        return f"{implementation}-{version}"

    @property
    def is_usual(self) -> bool:
        """Whether it is a CPython as most images have it."""
        return self.name == f"cpython-{self.version}"

    @property
    def identity(self) -> str:
        """What bytecode and installed wheels depend on; of a usual CPython the version, as of one in a base image."""
        return self.version if self.is_usual else f"{self.name} {self.release}"

    @property
    def links(self) -> tuple[str, ...]:
        """The names under which it is on PATH."""
        minor = ".".join(self.version.split(".")[:2])
        if self.name.startswith("pypy"):
            return ("python", "python3", f"python{minor}", "pypy3", f"pypy{minor}")
        suffix = (f"python{minor}t",) if self.name.endswith("+freethreaded") else ()
        return ("python", "python3", f"python{minor}", *suffix)
