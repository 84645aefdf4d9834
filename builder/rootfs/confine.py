"""How programs of an image can be run on this machine: by chroot, or in a user namespace."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import builder
from builder.errors import CommandError, EngineError
from builder.parse import Document, MalformedError, parse_document
from builder.process import run
from builder.rootfs.task import Task

# With sys.path as it is here: a folder that builder is started in must not hide modules.
_START: Final = (
    "import sys; sys.path[:] = sys.argv[2:]; from builder.rootfs.inside import do_task; do_task(sys.argv[1])"
)
_HINT: Final = (
    "run it as root with the capabilities that Docker gives containers (CHROOT among them), allow user namespaces "
    "(sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, "
    "kernel.apparmor_restrict_unprivileged_userns), use --maker cross if all packages have wheels, "
    "or name a BuildKit with --builder"
)


class Abilities(Document):
    """What is allowed: `chroot`; `isolation`, namespaces of mounts, processes and network; files of many `ids`."""

    chroot: bool
    isolation: bool
    ids: bool


@dataclass(frozen=True, kw_only=True)
class Confinement:
    """How to start the program that works on root file systems, and what it may do there."""

    prefix: tuple[str, ...]
    abilities: Abilities

    @property
    def name(self) -> str:
        """The program that starts it, for users."""
        return _name(self.prefix)

    @property
    def kind(self) -> str:
        """What owners and modes of unpacked files depend on: root's, those of a user namespace, or just files."""
        if not self.abilities.chroot:
            return "files"
        if not self.abilities.ids:
            return "user"
        return "ids" if self.prefix else "root"

    @property
    def limits(self) -> tuple[str, ...]:
        """What cannot be kept from a program, or be done by it, in words for a report."""
        network = "this machine allows no network namespace: the network was there, without names"
        ids = "this user has one id (see newuidmap(1)): files have one owner, and programs run as no other user"
        return (*([] if self.abilities.isolation else [network]), *([] if self.abilities.ids else [ids]))

    def argv(self, task: Path) -> tuple[str, ...]:
        """The command line that does the task in a file."""
        return _argv(self.prefix, task)


# For what unpacks images and runs nothing of them.
FILES_ONLY: Final = Confinement(prefix=(), abilities=Abilities(chroot=False, isolation=False, ids=False))


def _name(prefix: Sequence[str]) -> str:
    return Path(prefix[0]).name if prefix else "chroot"


def _argv(prefix: Sequence[str], task: Path) -> tuple[str, ...]:
    own = str(Path(builder.__file__).parents[1])
    here = {"", os.curdir, str(Path.cwd())} - {own}
    paths = [path for path in sys.path if path not in here]
    # Names in a layer are UTF-8, whatever the locale.
    return (*prefix, sys.executable, "-I", "-X", "utf8", "-c", _START, str(task), *dict.fromkeys([*paths, own]))


@lru_cache(maxsize=1)
def find_confinement() -> Confinement:
    """Find out how programs can be run here, by trying; raise EngineError if they cannot."""
    reasons = []
    with tempfile.TemporaryDirectory(prefix="builder-") as scratch:
        for prefix in _prefixes():
            found, reason = _try(prefix, Path(scratch))
            if found:
                return found
            reasons.append(reason)
    raise EngineError(f"no program of an image can be run on this machine: {'; '.join(reasons)}", hint=_HINT)


def _prefixes() -> Iterator[tuple[str, ...]]:
    yield ()
    if unshare := shutil.which("unshare"):
        own = (unshare, "--user", "--map-root-user")
        if shutil.which("newuidmap"):
            yield (*own, "--map-auto", "--")
        yield (*own, "--")
    if bubblewrap := shutil.which("bwrap"):
        yield (
            bubblewrap,
            "--unshare-user",
            "--uid",
            "0",
            "--gid",
            "0",
            "--cap-add",
            "ALL",
            "--dev-bind",
            "/",
            "/",
            "--",
        )


def _try(prefix: tuple[str, ...], scratch: Path) -> tuple[Confinement | None, str]:
    """Try a way; return what it allows, or why it does not."""
    name = _name(prefix)
    task, report = scratch / "task", scratch / "report"
    report.unlink(missing_ok=True)
    task.write_text(json.dumps(Task(kind="probe", target=str(scratch), report=str(report)).to_table()))
    try:
        done = run(_argv(prefix, task), seconds=60)
        abilities = parse_document(Abilities, report.read_bytes())
    except (CommandError, OSError, MalformedError):
        said = done.stderr.strip().splitlines()[-1:] if "done" in locals() else []
        return None, f"{name}: {said[0] if said else 'not allowed'}"
    if not abilities.chroot:
        return None, f"{name}: not allowed"
    return Confinement(prefix=prefix, abilities=abilities), ""
