"""The uv that reads locks: builder's own, or another one where a lock needs it."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from uv import find_uv_bin

from builder.errors import CommandError, LockError
from builder.process import Completed, run
from builder.redaction import redact

_OWN = re.compile("UV_|VIRTUAL_ENV$")
_PATIENCE = {"UV_HTTP_RETRIES", "UV_HTTP_TIMEOUT"}
_REQUIRED = re.compile(r"Required uv version `(?P<specifier>[^`]*)`")


@dataclass(frozen=True, kw_only=True)
class OtherUv:
    """The uv that reads what builder's own does not: that of the matrix, or without a matrix any that the lock admits.

    It is installed in a folder of `cache`; without one, no other uv is used.
    """

    version: str | None = None
    cache: Path | None = None

    def requirement_for(self, refusal: str) -> str | None:
        """The version specifier of a uv that may read what builder's own refused; None if there is none."""
        match = _REQUIRED.search(refusal)
        if self.cache is None or not (match or "schema version" in refusal):
            return None
        if self.version is None:
            return match["specifier"].replace(" ", "") if match else None
        if self.version == own_version() or (match and not _admits(match["specifier"], self.version)):
            return None
        return f"=={self.version}"


def own_version() -> str:
    """The version of builder's own uv."""
    return version("uv")


def run_uv(arguments: Sequence[str], folder: Path, *, program: Path | None = None, offline: bool = True) -> Completed:
    """Run uv in a folder. Of UV_* variables, such as UV_NO_DEV, it gets only those that do not change its answer.

    Paths in its output are relative to the folder. `program` is another uv than builder's own.
    """
    env = {name: value for name, value in os.environ.items() if name in _PATIENCE or not _OWN.match(name)}
    argv = [str(program or find_uv_bin()), *arguments, "--no-python-downloads", *(["--offline"] if offline else [])]
    return run(argv, env=env, cwd=folder)


def workspace_root(folder: Path) -> Path | None:
    """The folder whose `uv.lock` uv uses in this folder, as an absolute path; None if uv finds no project there."""
    # --no-config: the answer does not depend on settings, and a required-version must not prevent it.
    answer = run_uv(["workspace", "dir", "--no-config"], folder)
    return None if answer.returncode else Path(answer.stdout.strip())


def fetch_uv(specifier: str, cache: Path) -> Path:
    """Install the newest uv that meets the specifier into the cache, from the user's index; return the program.

    Raises LockError if there is none, or if the index cannot be reached.
    """
    program = cache / "uv" / re.sub(r"[^0-9.<>=!~,]", "", specifier) / "bin" / "uv"
    if program.is_file():
        return program
    home = program.parent.parent.parent
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home) as scratch:
        target = Path(scratch, "uv")
        argv = [
            find_uv_bin(), "pip", "install", "--quiet", "--python", sys.executable, "--target", str(target.absolute()),
            "--only-binary", ":all:", f"uv{specifier}",
        ]  # fmt: skip
        # Outside of the project, whose required-version would refuse this uv too.
        installed = run(argv, cwd=Path(tempfile.gettempdir()))
        if installed.returncode:
            raise LockError(
                f"uv{specifier} is needed, and cannot be installed: {redact(installed.stderr).strip()}",
                hint="check the index (UV_DEFAULT_INDEX), or change required-version, or uv in the matrix",
            )
        try:
            target.rename(program.parent.parent)
        except OSError as error:
            if not program.is_file():  # otherwise another run was faster
                raise CommandError(f"{program}: {error.strerror}") from error
    return program


def uv_program(wanted: str, cache: Path) -> Path:
    """The program of exactly this version: builder's own, or one that is installed in the cache; raise LockError."""
    return Path(find_uv_bin()) if wanted == own_version() else fetch_uv(f"=={wanted}", cache)


def version_of(program: Path) -> str:
    """The version of a uv program."""
    said = run([str(program), "--version"]).check(f"{program} does not run").stdout
    return said.split()[1] if len(said.split()) > 1 else ""


def _admits(specifier: str, wanted: str) -> bool:
    try:
        return SpecifierSet(specifier).contains(wanted)
    except InvalidSpecifier:
        return False
